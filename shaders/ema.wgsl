// An exponential moving average, in place.

struct Params {
    fours: u32, // groups of four elements
    rest: f32, // 1 - decay
}

@group(0) @binding(1) var<storage, read_write> average: array<vec4f>; // [fours]
@group(0) @binding(2) var<storage, read> value: array<vec4f>; // [fours]

/// average += (1 - decay) * (value - average)
@compute @workgroup_size(WG)
fn update(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let old = average[i];
        average[i] = fma(vec4f(p.rest), value[i] - old, old);
    }
}
