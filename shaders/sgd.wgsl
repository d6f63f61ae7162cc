// Stochastic gradient descent with momentum, in place, four elements at a time.

struct Params {
    fours: u32, // groups of four elements
    momentum: f32,
    weight_decay: f32,
    nesterov: u32,
    count: u32, // elements
}

@group(0) @binding(1) var<storage, read_write> parameter: array<vec4f>; // [fours]
// 2 gradient [fours], declared by the linker
@group(0) @binding(3) var<storage, read_write> velocity: array<vec4f>; // [fours]
@group(0) @binding(4) var<storage, read> rate: array<f32>; // [1]
@group(0) @binding(5) var<storage, read_write> fault: array<atomic<u32>>; // [1]: 1 if a result is not finite

@compute @workgroup_size(WG)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let factor = unscale();
    if factor == 0.0 {
        return; // a gradient overflowed
    }
    let lr = rate[0];
    let range = lane_fours(workgroup, lane, p.fours);
    var bad = vec4<bool>();
    for (var i = range.x; i < range.y; i += WG) {
        let w = parameter_at(i);
        let g = fma(vec4f(p.weight_decay), w, factor * gradient_at(i));
        let v = fma(vec4f(p.momentum), velocity_at(i), g);
        velocity[i] = v;
        let direction = select(v, fma(vec4f(p.momentum), v, g), p.nesterov != 0u);
        let next = fma(vec4f(-lr), direction, w);
        parameter[i] = next;
        bad |= not_finite(i, p.count, next);
    }
    if any(bad) {
        atomicOr(&fault[0], 1u);
    }
}
