// Global average pooling: y[n, c] = factor * sum over the pixels of x[n, :, c], in runs of `run` pixels; with more than
// one run an image, a second launch sums the runs as if they were pixels; sums of runs are always f32. And its
// gradient, a broadcast. X and Y are the element types of what is read and written.

struct Params {
    count: u32, // elements written
    pixels: u32, // of an image
    channels: u32,
    run: u32, // pixels summed by one invocation
    runs: u32, // of an image
    factor: f32,
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<X>; // [N, pixels, C]
@group(0) @binding(2) var<storage, read_write> y: array<Y>; // [N, runs, C]

// grad_x
@group(0) @binding(1) var<storage, read> d_y: array<E>; // [N, C]
@group(0) @binding(2) var<storage, read_write> d_x: array<E>; // [N, pixels, C]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let c = i % p.channels;
    let first = i / p.channels % p.runs * p.run;
    let n = i / (p.channels * p.runs);
    let pixels = min(p.run, p.pixels - first);
    var at = (n * p.pixels + first) * p.channels + c;
    var total = 0.0;
    for (var k = 0u; k < pixels; k++) {
        total += f32(x[at]);
        at += p.channels;
    }
    y[i] = Y(p.factor * total);
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let n = i / (p.pixels * p.channels);
        d_x[i] = E(p.factor * f32(d_y[n * p.channels + i % p.channels]));
    }
}
