// A sum before a residual is added to it.

/// The value, but a compiler can't tell: WGSL lets it add the residual to one of a few products and then the others,
/// which rounds otherwise than an addition by itself does. `index` is any below 2^31.
fn rounded(value: vec4f, index: u32) -> vec4f {
    return bitcast<vec4f>(bitcast<vec4u>(value) | vec4u(index >> 31u));
}
