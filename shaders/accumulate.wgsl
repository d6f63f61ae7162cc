// A running total of gradients, in place.

struct Params {
    fours: u32, // groups of four elements
}

@group(0) @binding(1) var<storage, read_write> total: array<vec4f>; // [fours]
@group(0) @binding(2) var<storage, read> gradient: array<vec4f>; // [fours]

/// total += gradient
@compute @workgroup_size(WG)
fn accumulate(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        total[i] += gradient[i];
    }
}

/// total = 0
@compute @workgroup_size(WG)
fn clear(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        total[i] = vec4f();
    }
}
