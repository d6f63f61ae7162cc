// ReLU: y = max(x, 0), element by element; NaN stays NaN. Elements: count.

struct Params {
    count: u32,
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [count]

// grad_x
@group(0) @binding(1) var<storage, read> y_saved: array<f32>; // [count]
@group(0) @binding(2) var<storage, read> d_y: array<f32>; // [count]
@group(0) @binding(3) var<storage, read_write> d_x: array<f32>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let v = x[i];
        y[i] = select(v, 0.0, v <= 0.0);
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        d_x[i] = select(0.0, d_y[i], y_saved[i] > 0.0);
    }
}
