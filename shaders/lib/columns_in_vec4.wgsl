// The right-hand matrix [rows, width] four columns at a time: the width is a multiple of four.

@group(0) @binding(2) var<storage, read> columns_in: array<E4>; // [rows, width]

/// Four columns of a row. Columns past the end repeat the last ones: their results are not stored.
fn load_columns(row: u32, column: u32) -> vec4f {
    return vec4f(columns_in[(row * width() + min(column, width() - 4u)) / 4u]);
}
