// The right-hand factor four elements at a time: its innermost extent is a multiple of four.

@group(0) @binding(2) var<storage, read> factor_b: array<vec4<f16>>; // [.., channels]

fn quad_b(k: u32, column: u32) -> vec4<f16> {
    let at = index_b(k, column);
    if at == NOWHERE {
        return vec4<f16>();
    }
    return factor_b[at / 4u];
}
