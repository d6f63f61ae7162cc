// Behind a product a residual is added, then perhaps ReLU. The width is a multiple of four.

@group(0) @binding(5) var<storage, read> residual: array<E4>; // [rows, width]

fn tail(row: u32, column: u32, value: vec4f) -> vec4f {
    let added = vec4f(residual[(row * width() + min(column, width() - 4u)) / 4u]);
    return rectify(rounded(value, row) + added);
}
