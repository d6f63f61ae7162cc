// The right operand, any extents.

@group(0) @binding(2) var<storage, read> b: array<E>; // [.., depth, columns], or [.., columns, depth] with TRANSPOSE_B

/// Up to four elements from `at`, as many as are `there`, then zeros.
fn b_four(at: u32, there: u32) -> vec4f {
    var v = vec4f();
    v.x = f32(b[at]);
    if there > 1u {
        v.y = f32(b[at + 1u]);
    }
    if there > 2u {
        v.z = f32(b[at + 2u]);
    }
    if there > 3u {
        v.w = f32(b[at + 3u]);
    }
    return v;
}
