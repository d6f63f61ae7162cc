// y = factor * x, and a constant fill. Elements: count.

struct Params {
    count: u32,
    factor: f32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<E>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = E(p.factor * f32(x[i]));
    }
}
