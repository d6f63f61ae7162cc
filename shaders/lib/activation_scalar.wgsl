// XV activations at a time, one by one: XV is at most 4 and divides the channel count. The linker declares
// `activations`.

/// XV channels from element `at`, in the first components.
fn load_activation(at: u32) -> vec4f {
    var channels: vec4f;
    for (var v = 0u; v < XV; v++) {
        channels[v] = activations_at(at + v);
    }
    return channels;
}
