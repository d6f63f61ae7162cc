// The right-hand factor one by one, for any extents.

@group(0) @binding(2) var<storage, read> factor_b: array<f16>; // [.., channels]

fn quad_b(k: u32, column: u32) -> vec4<f16> {
    var v = vec4<f16>();
    for (var i = 0u; i < 4u; i++) {
        let at = index_b(k + select(i, 0u, B_BY_ROWS), column + select(0u, i, B_BY_ROWS));
        if at != NOWHERE {
            v[i] = factor_b[at];
        }
    }
    return v;
}
