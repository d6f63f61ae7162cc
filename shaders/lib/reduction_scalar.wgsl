// Weights XV reduction elements at a time, one by one: goes with activation_scalar.

@group(0) @binding(2) var<storage, read> reduction_in: array<E>; // [R, S, C, K]

/// XV elements from element `at`, in the first components.
fn load_reduction(at: u32) -> vec4f {
    var elements: vec4f;
    for (var v = 0u; v < XV; v++) {
        elements[v] = f32(reduction_in[at + v]);
    }
    return elements;
}
