// Sigmoid: y = 1 / (1 + exp(-x)), element by element.

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
        // At most 1, so nothing overflows.
        let e = exp(-abs(v));
        y[i] = E4(select(e, vec4f(1.0), v >= vec4f()) / (1.0 + e));
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let s = vec4f(y_saved[i]);
        d_x[i] = E4(vec4f(d_y[i]) * s * (1.0 - s));
    }
}
