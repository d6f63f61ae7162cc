// Conversion between f32 and f16, element by element; E is f16. Elements: count. To f16, numbers are rounded to a
// neighbour (to the nearest where the driver does so), and those far beyond 65504 become infinite.

struct Params {
    count: u32,
}

const WG: u32 = 64u;

// to_half
@group(0) @binding(1) var<storage, read> x: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [count]

// to_full
@group(0) @binding(1) var<storage, read> half: array<E>; // [count]
@group(0) @binding(2) var<storage, read_write> full: array<f32>; // [count]

@compute @workgroup_size(WG)
fn to_half(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = E(x[i]);
    }
}

@compute @workgroup_size(WG)
fn to_full(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        full[i] = f32(half[i]);
    }
}
