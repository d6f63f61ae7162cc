// Stochastic gradient descent with momentum, in place. Elements: count.

struct Params {
    count: u32,
    momentum: f32,
    weight_decay: f32,
    nesterov: u32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read_write> parameter: array<f32>; // [count]
@group(0) @binding(2) var<storage, read> gradient: array<f32>; // [count]
@group(0) @binding(3) var<storage, read_write> velocity: array<f32>; // [count]
@group(0) @binding(4) var<storage, read> rate: array<f32>; // [1]

@compute @workgroup_size(WG)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let factor = unscale();
    if i >= p.count || factor == 0.0 { // 0: a gradient overflowed
        return;
    }
    let g = fma(p.weight_decay, parameter[i], factor * gradient[i]);
    let v = fma(p.momentum, velocity[i], g);
    velocity[i] = v;
    let direction = select(v, fma(p.momentum, v, g), p.nesterov != 0u);
    parameter[i] = fma(-rate[0], direction, parameter[i]);
}
