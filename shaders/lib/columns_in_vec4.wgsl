// The right-hand matrix [rows, width] four columns at a time: the width is a multiple of four. The linker declares
// `columns_in`.

/// Four columns of a row. Columns past the end repeat the last ones: their results are not stored.
fn load_columns(row: u32, column: u32) -> vec4f {
    return columns_in_at((row * width() + min(column, width() - 4u)) / 4u);
}
