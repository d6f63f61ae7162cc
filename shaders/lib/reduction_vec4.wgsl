// Weights four reduction elements at a time: goes with activation_vec4.

@group(0) @binding(2) var<storage, read> reduction_in: array<E4>; // [R, S, C, K]

fn load_reduction(at: u32) -> vec4f {
    return vec4f(reduction_in[at / 4u]);
}
