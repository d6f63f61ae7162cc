// The left operand four at a time: what is contiguous is a multiple of four.

@group(0) @binding(1) var<storage, read> a: array<E4>; // [.., rows, depth], or [.., depth, rows] with TRANSPOSE_A

/// Four elements from `at`, a multiple of four; all of them are there.
fn a_four(at: u32, there: u32) -> vec4f {
    return vec4f(a[at / 4u]);
}
