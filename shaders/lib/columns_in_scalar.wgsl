// The right-hand matrix [rows, width], any width.

@group(0) @binding(2) var<storage, read> columns_in: array<E>; // [rows, width]

/// Four columns of a row. Columns past the end repeat the last one: their results are not stored.
fn load_columns(row: u32, column: u32) -> vec4f {
    let at = row * width();
    let last = width() - 1u;
    return vec4f(
        f32(columns_in[at + min(column, last)]),
        f32(columns_in[at + min(column + 1u, last)]),
        f32(columns_in[at + min(column + 2u, last)]),
        f32(columns_in[at + min(column + 3u, last)]),
    );
}
