// The gradient behind a ReLU is kept: others use it too.

@group(0) @binding(7) var<storage, read_write> d_masked: array<VE>; // [rows, channels]

fn keep(i: u32, d: V) {
    d_masked[i] = VE(d);
}
