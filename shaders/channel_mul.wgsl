// Channel-wise scaling: y[n, pixel, c] = x[n, pixel, c] * s[n, c]. The gradient of x is the same kernel on d_y; that
// of s is a sum over pixels, here in runs of `run` pixels.

struct Params {
    count: u32, // elements written
    pixels: u32, // of an image
    channels: u32,
    run: u32, // pixels summed by one invocation
    runs: u32, // of an image
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<E>; // [N, pixels, C]
@group(0) @binding(2) var<storage, read> s: array<E>; // [N, C]
@group(0) @binding(3) var<storage, read_write> y: array<E>; // [N, pixels, C]

// grad_s
@group(0) @binding(1) var<storage, read> d_y: array<E>; // [N, pixels, C]
@group(0) @binding(2) var<storage, read> x_saved: array<E>; // [N, pixels, C]
@group(0) @binding(3) var<storage, read_write> d_s: array<D>; // [N, runs, C]; D: f32 if there are several runs

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let n = i / (p.pixels * p.channels);
        y[i] = E(f32(x[i]) * f32(s[n * p.channels + i % p.channels]));
    }
}

@compute @workgroup_size(WG)
fn grad_s(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
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
        total += f32(d_y[at]) * f32(x_saved[at]);
        at += p.channels;
    }
    d_s[i] = D(total);
}
