// The result, any columns.

@group(0) @binding(3) var<storage, read_write> y: array<E>; // [.., rows, columns]

/// Stores up to four elements from `at`, as many as there is room for.
fn put_four(at: u32, room: u32, v: vec4f) {
    y[at] = E(v.x);
    if room > 1u {
        y[at + 1u] = E(v.y);
    }
    if room > 2u {
        y[at + 2u] = E(v.z);
    }
    if room > 3u {
        y[at + 3u] = E(v.w);
    }
}
