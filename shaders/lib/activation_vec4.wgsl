// Activations four at a time (XV = 4): the channel count is a multiple of four. The linker declares `activations`.

/// Four channels from element `at`, a multiple of four.
fn load_activation(at: u32) -> vec4f {
    return activations_at(at / 4u);
}
