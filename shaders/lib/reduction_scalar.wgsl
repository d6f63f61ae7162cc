// Weights [R, S, C, K] XV reduction elements at a time, one by one: goes with activation_scalar. The linker declares
// `reduction_in`.

/// XV elements from element `at`, in the first components.
fn load_reduction(at: u32) -> vec4f {
    var elements: vec4f;
    for (var v = 0u; v < XV; v++) {
        elements[v] = reduction_in_at(at + v);
    }
    return elements;
}
