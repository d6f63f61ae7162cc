// The right operand four at a time: what is contiguous is a multiple of four.

@group(0) @binding(2) var<storage, read> b: array<E4>; // [.., depth, columns], or [.., columns, depth] with TRANSPOSE_B

/// Four elements from `at`, a multiple of four; all of them are there.
fn b_four(at: u32, there: u32) -> vec4f {
    return vec4f(b[at / 4u]);
}
