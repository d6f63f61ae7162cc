// ReLU: y = max(x, 0), element by element; NaN stays NaN.

struct Params {
    fours: u32, // groups of four elements
}

// forward
// 1 x [fours], declared by the linker
@group(0) @binding(2) var<storage, read_write> y: array<E4>; // [fours]

// grad_x
// 1 y_saved, 2 d_y [fours], declared by the linker
@group(0) @binding(3) var<storage, read_write> d_x: array<E4>; // [fours]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = x_at(i);
        y[i] = E4(select(v, vec4f(), v <= vec4f()));
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        d_x[i] = E4(select(vec4f(), d_y_at(i), y_saved_at(i) > vec4f()));
    }
}
