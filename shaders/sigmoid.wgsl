// Sigmoid: y = 1 / (1 + exp(-x)), element by element. Elements: count.

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
        let v = f32(x[i]);
        // At most 1, so nothing overflows.
        let e = exp(-abs(v));
        y[i] = E(select(e, 1.0, v >= 0.0) / (1.0 + e));
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let s = f32(y_saved[i]);
        d_x[i] = E(f32(d_y[i]) * s * (1.0 - s));
    }
}
