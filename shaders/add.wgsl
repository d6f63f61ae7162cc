// y = a + b, element by element. Elements: count.

struct Params {
    count: u32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> a: array<E>; // [count]
@group(0) @binding(2) var<storage, read> b: array<E>; // [count]
@group(0) @binding(3) var<storage, read_write> y: array<E>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = E(f32(a[i]) + f32(b[i]));
    }
}
