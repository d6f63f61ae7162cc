// Activations one channel at a time: any channel count.

const XV: u32 = 1u;

@group(0) @binding(1) var<storage, read> activations: array<f32>; // [.., channels]

/// The channel at element `at`, in the first component.
fn load_activation(at: u32) -> vec4f {
    return vec4f(activations[at], 0.0, 0.0, 0.0);
}
