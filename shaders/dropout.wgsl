// Inverted dropout: y = keep ? scale * x : 0, element by element, where `keep` is a pure function of the key, the step
// and the element's index: element i is kept in a step if the first word of threefry(key, (i, step)) as a float is at
// least `rate`.

struct Params {
    count: u32,
    rate: f32,
    scale: f32, // 1 / (1 - rate)
    key_x: u32,
    key_y: u32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<E>; // [count]
@group(0) @binding(2) var<storage, read> clock: array<u32>; // [1], the step
@group(0) @binding(3) var<storage, read_write> y: array<E>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let word = threefry(vec2u(p.key_x, p.key_y), vec2u(i, clock[0])).x;
        y[i] = select(E(0.0), E(p.scale * f32(x[i])), unit_float(word) >= p.rate);
    }
}
