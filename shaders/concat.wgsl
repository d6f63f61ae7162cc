// Concatenation on the last axis, one launch an input: y[row, first + c] = x[row, c].

struct Params {
    count: u32, // elements of this input
    channels: u32, // of this input, c
    first: u32, // where its channels start in y
    out_channels: u32, // K
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<E>; // [rows, c]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [rows, K]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i / p.channels * p.out_channels + p.first + i % p.channels] = x[i];
    }
}
