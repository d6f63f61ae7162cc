// The right-hand matrix [rows, width], any width. The linker declares `columns_in`.

/// Four columns of a row. Columns past the end repeat the last one: their results are not stored.
fn load_columns(row: u32, column: u32) -> vec4f {
    let at = row * width();
    let last = width() - 1u;
    return vec4f(
        columns_in_at(at + min(column, last)),
        columns_in_at(at + min(column + 1u, last)),
        columns_in_at(at + min(column + 2u, last)),
        columns_in_at(at + min(column + 3u, last)),
    );
}
