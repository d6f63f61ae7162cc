// XV activations at a time, one by one: XV is at most 4 and divides the channel count.

@group(0) @binding(1) var<storage, read> activations: array<E>; // [.., channels]

/// XV channels from element `at`, in the first components.
fn load_activation(at: u32) -> vec4f {
    var channels: vec4f;
    for (var v = 0u; v < XV; v++) {
        channels[v] = f32(activations[at + v]);
    }
    return channels;
}
