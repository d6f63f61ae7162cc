// SiLU: y = x sigmoid(x), element by element.

struct Params {
    fours: u32, // groups of four elements
}

// forward
@group(0) @binding(1) var<storage, read> x: array<E4>; // [fours]
@group(0) @binding(2) var<storage, read_write> y: array<E4>; // [fours]

// grad_x
@group(0) @binding(2) var<storage, read> d_y: array<E4>; // [fours]
@group(0) @binding(3) var<storage, read_write> d_x: array<E4>; // [fours]

/// Sigmoid of x and of -x: the exponent is never positive.
fn sigmoids(x: vec4f) -> array<vec4f, 2> {
    let e = exp(-abs(x));
    let small = e / (1.0 + e);
    let large = 1.0 / (1.0 + e);
    return array<vec4f, 2>(select(small, large, x >= vec4f()), select(large, small, x >= vec4f()));
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = vec4f(x[i]);
        y[i] = E4(v * sigmoids(v)[0]);
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = vec4f(x[i]);
        let s = sigmoids(v);
        d_x[i] = E4(vec4f(d_y[i]) * (s[0] + v * s[0] * s[1]));
    }
}
