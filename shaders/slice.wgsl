// A range of the last axis: y[row, c] = x[row, first + c]; and its gradient, which is zero outside the range.

struct Params {
    count: u32, // elements written
    channels: u32, // of x, C
    first: u32, // channel of x
    length: u32, // channels of y, L
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<E>; // [rows, C]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [rows, L]

// grad_x
@group(0) @binding(1) var<storage, read> d_y: array<E>; // [rows, L]
@group(0) @binding(2) var<storage, read_write> d_x: array<E>; // [rows, C]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = x[i / p.length * p.channels + p.first + i % p.length];
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    // Wraps for channels before the range, which makes it larger than the range.
    let c = i % p.channels - p.first;
    var d = E(0.0);
    if c < p.length {
        d = d_y[i / p.channels * p.length + c];
    }
    d_x[i] = d;
}
