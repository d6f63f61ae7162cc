// ReLU: y = max(x, 0), element by element; NaN stays NaN.

struct Params {
    fours: u32, // groups of four elements
}

// forward
@group(0) @binding(1) var<storage, read> x: array<E4>; // [fours]
@group(0) @binding(2) var<storage, read_write> y: array<E4>; // [fours]

// grad_x
@group(0) @binding(1) var<storage, read> y_saved: array<E4>; // [fours]
@group(0) @binding(2) var<storage, read> d_y: array<E4>; // [fours]
@group(0) @binding(3) var<storage, read_write> d_x: array<E4>; // [fours]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = vec4f(x[i]);
        y[i] = E4(select(v, vec4f(), v <= vec4f()));
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        d_x[i] = select(E4(), d_y[i], y_saved[i] > E4());
    }
}
