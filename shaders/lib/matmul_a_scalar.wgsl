// The left operand, any extents.

@group(0) @binding(1) var<storage, read> a: array<E>; // [.., rows, depth], or [.., depth, rows] with TRANSPOSE_A

/// Up to four elements from `at`, as many as are `there`, then zeros.
fn a_four(at: u32, there: u32) -> vec4f {
    var v = vec4f();
    v.x = f32(a[at]);
    if there > 1u {
        v.y = f32(a[at + 1u]);
    }
    if there > 2u {
        v.z = f32(a[at + 2u]);
    }
    if there > 3u {
        v.w = f32(a[at + 3u]);
    }
    return v;
}
