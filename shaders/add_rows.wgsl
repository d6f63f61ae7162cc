// y[row, j] = x[row, j] + b[j]. A lane has V, one element or four.

struct Params {
    count: u32, // V in all
    length: u32, // V in a row
}

@group(0) @binding(1) var<storage, read> x: array<VX>; // [rows, length]
@group(0) @binding(2) var<storage, read> b: array<V>; // [length]
@group(0) @binding(3) var<storage, read_write> y: array<VY>; // [rows, length]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.count);
    for (var i = range.x; i < range.y; i += WG) {
        y[i] = VY(V(x[i]) + b[i % p.length]);
    }
}
