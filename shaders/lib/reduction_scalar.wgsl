// Weights one reduction element at a time: goes with activation_scalar.

@group(0) @binding(2) var<storage, read> reduction_in: array<f32>; // [R, S, C, K]

fn load_reduction(at: u32) -> vec4f {
    return vec4f(reduction_in[at], 0.0, 0.0, 0.0);
}
