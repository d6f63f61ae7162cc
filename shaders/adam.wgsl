// Adam and AdamW, in place. Elements: count.

struct Params {
    count: u32,
    beta1: f32,
    beta2: f32,
    rest1: f32, // 1 - beta1 and 1 - beta2, from the host's f64
    rest2: f32,
    eps: f32,
    weight_decay: f32,
    decoupled: u32,
}

const WG: u32 = 64u;
const EACH: u32 = 16u;

@group(0) @binding(1) var<storage, read_write> parameter: array<f32>; // [count]
@group(0) @binding(2) var<storage, read> gradient: array<f32>; // [count]
@group(0) @binding(3) var<storage, read_write> m: array<f32>; // [count]: first moment
@group(0) @binding(4) var<storage, read_write> v: array<f32>; // [count]: second moment
@group(0) @binding(5) var<storage, read> rate: array<f32>; // [1]
@group(0) @binding(6) var<storage, read> correction: array<f32>; // [2]: 1 - beta^step

/// EACH elements a lane, a workgroup's width apart, so that what all share is loaded once.
@compute @workgroup_size(WG)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let factor = unscale();
    if factor == 0.0 {
        return; // a gradient overflowed
    }
    let lr = rate[0];
    let step = lr / correction[0];
    let root = sqrt(correction[1]);
    let first = group_index(workgroup) * WG * EACH + lane;
    for (var i = first; i < min(p.count, first + WG * EACH); i += WG) {
        var w = parameter[i];
        var g = factor * gradient[i];
        if p.decoupled != 0u {
            w *= fma(-lr, p.weight_decay, 1.0);
        } else {
            g = fma(p.weight_decay, w, g);
        }
        let m1 = fma(p.rest1, g, p.beta1 * m[i]);
        let m2 = fma(p.rest2 * g, g, p.beta2 * v[i]);
        m[i] = m1;
        v[i] = m2;
        parameter[i] = w - step * (m1 / (sqrt(m2) / root + p.eps));
    }
}
