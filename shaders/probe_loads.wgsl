// How long loads take, each lane at an address of its own: once from a buffer, once from a copy of it in a texture.

struct Params { rounds: u32 }

// From the header: WG lanes of a workgroup, COUNT loads of four floats.

// 1 x [4 * COUNT], declared by the linker
@group(0) @binding(2) var<storage, read_write> sums: array<vec4f>; // [workgroups, WG]

@compute @workgroup_size(WG)
fn loads(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    var sum = vec4f();
    for (var round = 0u; round < p.rounds; round++) {
        let i = 97u * workgroup.x + 16u * round + lane;
        sum += x_at(i % COUNT);
        sum += x_at((i + COUNT / 2u) % COUNT);
    }
    sums[workgroup.x * WG + lane] = sum;
}
