// The result matrix [rows, width] four columns at a time: the width is a multiple of four, or of a tile's if
// WHOLE_COLUMNS; the kernel says what a `Result4` is.

@group(0) @binding(OUT) var<storage, read_write> columns_out: array<Result4>; // [rows, width]

fn store_columns(row: u32, column: u32, value: vec4f) {
    if WHOLE_COLUMNS || column < width() {
        columns_out[(row * width() + column) / 4u] = Result4(value);
    }
}
