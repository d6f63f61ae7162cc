// Behind a product a residual is added, then perhaps ReLU. Any width.

@group(0) @binding(5) var<storage, read> residual: array<E>; // [rows, width]

fn tail(row: u32, column: u32, value: vec4f) -> vec4f {
    var sum = rounded(value, row);
    for (var i = 0u; i < 4u; i++) {
        sum[i] += f32(residual[row * width() + min(column + i, width() - 1u)]);
    }
    return rectify(sum);
}
