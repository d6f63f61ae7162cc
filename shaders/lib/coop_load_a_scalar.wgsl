// The left-hand factor one by one, for any extents.

@group(0) @binding(1) var<storage, read> factor_a: array<f16>; // [.., channels]

fn quad_a(located: vec3u, row: u32, k: u32) -> vec4<f16> {
    var v = vec4<f16>();
    for (var i = 0u; i < 4u; i++) {
        var at: u32;
        if A_BY_ROWS {
            at = index_a(located, k + i);
        } else {
            at = index_a(locate(row + i), k);
        }
        if at != NOWHERE {
            v[i] = factor_a[at];
        }
    }
    return v;
}
