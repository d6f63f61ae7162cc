// How fast a device streams memory: one large buffer copied to another, for benchmarks. Vectors of four words: count.

struct Params {
    count: u32,
    stride: u32, // sample: vectors from one sample to the next
    seed: u32,
}

const WG: u32 = 256u;
// From the host: EACH, the vectors an invocation copies.

// fill
@group(0) @binding(1) var<storage, read_write> filled: array<vec4u>; // [count]

// copy
@group(0) @binding(1) var<storage, read> x: array<vec4u>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<vec4u>; // [count]

// sample
@group(0) @binding(1) var<storage, read> whole: array<vec4u>; // [at least (count - 1) * stride + 1]
@group(0) @binding(2) var<storage, read_write> samples: array<vec4u>; // [count]

// Word j holds j * 2654435761 + seed: no two alike, and none like what a fresh buffer holds.
@compute @workgroup_size(WG)
fn fill(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        filled[i] = (4u * i + vec4u(0u, 1u, 2u, 3u)) * 2654435761u + p.seed;
    }
}

@compute @workgroup_size(WG)
fn copy(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group_index(workgroup) * (WG * EACH) + lane;
    // All loads before the first store, so that they are under way together.
    var value: array<vec4u, EACH>;
    for (var k = 0u; k < EACH; k++) {
        value[k] = x[min(first + k * WG, p.count - 1u)];
    }
    for (var k = 0u; k < EACH; k++) {
        let i = first + k * WG;
        if i < p.count {
            y[i] = value[k];
        }
    }
}

@compute @workgroup_size(WG)
fn sample(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        samples[i] = whole[i * p.stride];
    }
}
