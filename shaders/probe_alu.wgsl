// How many multiply-adds a device does in a second: independent chains of them in registers, for benchmarks.

struct Params {
    count: u32, // invocations
    rounds: u32,
}

const WG: u32 = 128u;
// From the host: VECTORS chains of four; STEPS multiply-adds of each in a round; FUSED for fma().

@group(0) @binding(1) var<storage, read> x: array<f32>; // [count]
// Loaded, so that no compiler knows them.
@group(0) @binding(2) var<storage, read> coefficients: array<f32>; // [2]: factor, addend
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [count]

// y: the sum of all chains of an invocation; chain j starts at x + j, and a step is c = c * factor + addend.
@compute @workgroup_size(WG)
fn chains(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let factor = E4(E(coefficients[0]));
    let addend = E4(E(coefficients[1]));
    var chain: array<E4, VECTORS>;
    for (var v = 0u; v < VECTORS; v++) {
        chain[v] = E4(vec4f(x[i] + f32(4u * v)) + vec4f(0.0, 1.0, 2.0, 3.0));
    }
    for (var round = 0u; round < p.rounds; round++) {
        for (var step = 0u; step < STEPS; step++) {
            for (var v = 0u; v < VECTORS; v++) {
                if FUSED {
                    chain[v] = fma(chain[v], factor, addend);
                } else {
                    chain[v] = chain[v] * factor + addend;
                }
            }
        }
    }
    var sum = E4();
    for (var v = 0u; v < VECTORS; v++) {
        sum += chain[v];
    }
    y[i] = f32(sum.x + sum.y + sum.z + sum.w);
}
