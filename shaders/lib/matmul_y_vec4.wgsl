// The result four at a time: its columns are a multiple of four.

@group(0) @binding(3) var<storage, read_write> y: array<E4>; // [.., rows, columns]

/// Stores four elements from `at`, a multiple of four; there is room for all.
fn put_four(at: u32, room: u32, v: vec4f) {
    y[at / 4u] = E4(v);
}
