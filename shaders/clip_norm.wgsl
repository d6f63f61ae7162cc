// Clipping by the common norm of all gradients: the sum of squares of one gradient, in a fixed order, in one stage or two;
// and the factor that follows from the sum over all of them.

struct Params {
    count: u32,
    run: u32, // elements that a workgroup sums
    squared: u32, // whether they are squared first
    most: f32, // the norm that is not exceeded
}

const LARGE: f32 = 3e38;
const WG: u32 = 64u;
alias Summed = f32;

// parts, add
@group(0) @binding(1) var<storage, read> x: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // parts: [ceil(count / run)]; add: [1]

// factor
@group(0) @binding(1) var<storage, read_write> total: array<f32>; // [1]: the sum of squares of all gradients
// 2 1 / loss scale [1], where there is one, declared by the linker
@group(0) @binding(FACTOR) var<storage, read_write> clipped: array<f32>; // [1]

/// The sum of a workgroup's run.
fn sum_of_run(group: u32, lane: u32) -> f32 {
    let end = min(p.count, (group + 1u) * p.run);
    var sum = 0.0;
    for (var i = group * p.run + lane; i < end; i += WG) {
        let v = x[i];
        sum += select(v, v * v, p.squared != 0u);
    }
    return lane_sum(sum, lane);
}

/// The sum of each run.
@compute @workgroup_size(WG)
fn parts(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let sum = sum_of_run(group, lane);
    if lane == 0u && group * p.run < p.count {
        y[group] = sum;
    }
}

/// The sum of the only run, added to a total.
@compute @workgroup_size(WG)
fn add(@builtin(local_invocation_index) lane: u32) {
    let sum = sum_of_run(0u, lane);
    if lane == 0u {
        y[0] += sum;
    }
}

/// What gradients are multiplied by; the total begins anew. Where the norm is not finite, be it that a gradient is not or that only
/// its square is too large, large gradients become infinite, so that the step is not hidden; and zeros stay zeros, as the gaps
/// between bundled tensors must. By bits, as in loss_scale.wgsl.
@compute @workgroup_size(1)
fn factor() {
    let squares = total[0];
    total[0] = 0.0;
    let plain = unscale();
    let finite = (bitcast<u32>(squares) & 0x7f800000u) != 0x7f800000u;
    let share = min(1.0, p.most / (plain * sqrt(squares) + 1e-6));
    if plain == 0.0 {
        clipped[0] = 0.0; // nothing is to be updated
    } else {
        clipped[0] = select(LARGE, plain * share, finite);
    }
}
