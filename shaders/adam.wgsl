// Adam and AdamW, in place, four elements at a time.

struct Params {
    fours: u32, // groups of four elements
    beta1: f32,
    beta2: f32,
    rest1: f32, // 1 - beta1 and 1 - beta2, from the host's f64
    rest2: f32,
    eps: f32,
    weight_decay: f32,
    decoupled: u32,
    count: u32, // elements
}

@group(0) @binding(1) var<storage, read_write> parameter: array<vec4f>; // [fours]
// 2 gradient [fours], declared by the linker
@group(0) @binding(3) var<storage, read_write> m: array<vec4f>; // [fours]: first moment
@group(0) @binding(4) var<storage, read_write> v: array<vec4f>; // [fours]: second moment
@group(0) @binding(5) var<storage, read> rate: array<f32>; // [1]
@group(0) @binding(6) var<storage, read> correction: array<f32>; // [2]: 1 - beta^step
@group(0) @binding(7) var<storage, read_write> fault: array<atomic<u32>>; // [1]: 1 if a result is not finite

@compute @workgroup_size(WG)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let factor = unscale();
    if factor == 0.0 {
        return; // a gradient overflowed
    }
    let lr = rate[0];
    let step = lr / correction[0];
    let root = sqrt(correction[1]);
    let range = lane_fours(workgroup, lane, p.fours);
    var bad = vec4<bool>();
    for (var i = range.x; i < range.y; i += WG) {
        var w = parameter_at(i);
        var g = factor * gradient_at(i);
        if p.decoupled != 0u {
            w *= fma(-lr, p.weight_decay, 1.0);
        } else {
            g = fma(vec4f(p.weight_decay), w, g);
        }
        let m1 = fma(vec4f(p.rest1), g, p.beta1 * m_at(i));
        let m2 = fma(p.rest2 * g, g, p.beta2 * v_at(i));
        m[i] = m1;
        v[i] = m2;
        w -= step * (m1 / (sqrt(m2) / root + p.eps));
        parameter[i] = w;
        // An infinite second moment stops its weight for good, and does not show in it.
        bad |= not_finite(i, p.count, w) | not_finite(i, p.count, m2);
    }
    if any(bad) {
        atomicOr(&fault[0], 1u);
    }
}
