// Dynamic loss scaling: the search for gradients that are not finite, and what follows from it.

struct Params {
    count: u32, // elements of a gradient
    interval: u32, // steps without overflow after which the scale grows
    growth: f32,
    backoff: f32,
}

const WG: u32 = 64u;
const EACH: u32 = 16u;

@group(0) @binding(1) var<storage, read_write> flag: array<atomic<u32>>; // [1]: 1 if something was not finite

// check
@group(0) @binding(2) var<storage, read> gradient: array<u32>; // [count]: the bits of f32 numbers

// decide
@group(0) @binding(2) var<storage, read_write> scale: array<f32>; // [1]
@group(0) @binding(3) var<storage, read_write> steps: array<f32>; // [2]: since the scale changed, skipped in all
@group(0) @binding(4) var<storage, read_write> unscale: array<f32>; // [1]: 1 / scale, or 0 to skip the update

/// EACH elements a lane. By bits, so that a compiler that assumes there is no NaN cannot drop the question: the exponent
/// of infinities and NaN is all ones.
@compute @workgroup_size(WG)
fn check(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let first = group_index(workgroup) * WG * EACH + lane;
    var found = false;
    for (var i = first; i < min(p.count, first + WG * EACH); i += WG) {
        found |= (gradient[i] & 0x7f800000u) == 0x7f800000u;
    }
    if found {
        atomicOr(&flag[0], 1u);
    }
}

@compute @workgroup_size(1)
fn decide() {
    let overflow = atomicExchange(&flag[0], 0u) != 0u;
    unscale[0] = select(1.0 / scale[0], 0.0, overflow);
    if overflow {
        // Its inverse stays finite.
        scale[0] = max(scale[0] * p.backoff, 1e-30);
        steps[0] = 0.0;
        steps[1] += 1.0;
    } else if steps[0] + 1.0 >= f32(p.interval) {
        scale[0] *= p.growth;
        steps[0] = 0.0;
    } else {
        steps[0] += 1.0;
    }
}
