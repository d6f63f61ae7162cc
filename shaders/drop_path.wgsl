// Stochastic depth: y = keep ? scale * x : 0, sample by sample, where `keep` is a pure function of the key, the step
// and the sample's number: a sample is kept in a step if the first word of threefry(key, (sample, step)) as a float is
// at least `rate`. A lane has V, one element or four.

struct Params {
    count: u32, // V in all
    length: u32, // V in a sample
    rate: f32,
    scale: f32, // 1 / (1 - rate)
    key_x: u32,
    key_y: u32,
}

@group(0) @binding(1) var<storage, read> x: array<VX>; // [samples, length]
@group(0) @binding(2) var<storage, read> clock: array<u32>; // [1], the step
@group(0) @binding(3) var<storage, read_write> y: array<VY>; // [samples, length]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.count);
    for (var i = range.x; i < range.y; i += WG) {
        let word = threefry(vec2u(p.key_x, p.key_y), vec2u(i / p.length, clock[0])).x;
        if unit_float(word) >= p.rate {
            y[i] = VY(p.scale * V(x[i]));
        } else {
            y[i] = VY();
        }
    }
}
