// The result matrix [rows, width], any width; the kernel says what a `Result` is.

@group(0) @binding(OUT) var<storage, read_write> columns_out: array<Result>; // [rows, width]

fn store_columns(row: u32, column: u32, value: vec4f) {
    for (var i = 0u; i < 4u; i++) {
        if column + i < width() {
            columns_out[row * width() + column + i] = Result(value[i]);
        }
    }
}
