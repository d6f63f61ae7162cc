// y = a + b, element by element.

struct Params {
    fours: u32, // groups of four elements
}

// 1 a, 2 b [fours], declared by the linker
@group(0) @binding(3) var<storage, read_write> y: array<E4>; // [fours]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        y[i] = E4(a_at(i) + b_at(i));
    }
}
