// Behind a result a residual is added, then perhaps ReLU.

@group(0) @binding(5) var<storage, read> residual: array<E>; // [count], as the result

fn finished(i: u32, value: f32) -> f32 {
    return rectify(rounded(vec4f(value), i) + f32(residual[i])).x;
}
