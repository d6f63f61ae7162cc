// ReLU: y = max(x, 0), element by element; NaN stays NaN. Elements: count.

struct Params {
    count: u32,
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<E>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [count]

// grad_x
@group(0) @binding(1) var<storage, read> y_saved: array<E>; // [count]
@group(0) @binding(2) var<storage, read> d_y: array<E>; // [count]
@group(0) @binding(3) var<storage, read_write> d_x: array<E>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let v = x[i];
        y[i] = select(v, E(0.0), v <= E(0.0));
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        d_x[i] = select(E(0.0), d_y[i], y_saved[i] > E(0.0));
    }
}
