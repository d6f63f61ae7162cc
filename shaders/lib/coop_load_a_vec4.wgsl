// The left-hand factor four elements at a time: its innermost extent is a multiple of four.

@group(0) @binding(1) var<storage, read> factor_a: array<vec4<f16>>; // [.., channels]

fn quad_a(located: vec3u, row: u32, k: u32) -> vec4<f16> {
    let at = index_a(located, k);
    if at == NOWHERE {
        return vec4<f16>();
    }
    return factor_a[at / 4u];
}
