// Activations four at a time (XV = 4): the channel count is a multiple of four.

@group(0) @binding(1) var<storage, read> activations: array<E4>; // [.., channels]

/// Four channels from element `at`, a multiple of four.
fn load_activation(at: u32) -> vec4f {
    return vec4f(activations[at / 4u]);
}
