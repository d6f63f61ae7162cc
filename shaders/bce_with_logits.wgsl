// Binary cross-entropy of logits, mean over all elements, in a fixed order: each workgroup of `partial_sums` sums a
// contiguous run of `run` elements; `total` then sums the runs with a single workgroup. And the gradient.

struct Params {
    count: u32,
    run: u32,
    factor: f32,
}

const WG: u32 = 64u;
alias Summed = f32;

// partial_sums and grad
@group(0) @binding(1) var<storage, read> x: array<f32>; // logits [count]
@group(0) @binding(2) var<storage, read> t: array<f32>; // targets [count]

// partial_sums
@group(0) @binding(3) var<storage, read_write> sums: array<f32>; // [ceil(count / run)]

// total
@group(0) @binding(1) var<storage, read> runs: array<f32>; // [count]
@group(0) @binding(2) var<storage, read_write> loss: array<f32>; // [1]

// grad
@group(0) @binding(3) var<storage, read> d_loss: array<f32>; // [1]
@group(0) @binding(4) var<storage, read_write> d_x: array<f32>; // [count]

/// The loss of one element. For x >= 0 this is x (1 - t), not x - x t, which would cancel.
fn element(x: f32, t: f32) -> f32 {
    return select(-x * t, x * (1.0 - t), x >= 0.0) + log_1p(exp(-abs(x)));
}

@compute @workgroup_size(WG)
fn partial_sums(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let end = min(p.count, (group + 1u) * p.run);
    var sum = 0.0;
    for (var i = group * p.run + lane; i < end; i += WG) {
        sum += element(x[i], t[i]);
    }
    sum = p.factor * lane_sum(sum, lane);
    if lane == 0u && group * p.run < p.count {
        sums[group] = sum;
    }
}

@compute @workgroup_size(WG)
fn total(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.count; i += WG) {
        sum += runs[i];
    }
    sum = p.factor * lane_sum(sum, lane);
    if lane == 0u && group_index(workgroup) == 0u {
        loss[0] = sum;
    }
}

/// (sigmoid(x) - t) * factor * d_loss, without cancellation where the sigmoid is close to 1.
@compute @workgroup_size(WG)
fn grad(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let e = exp(-abs(x[i]));
        let small = e / (1.0 + e); // sigmoid(-|x|)
        d_x[i] = select(small - t[i], (1.0 - t[i]) - small, x[i] >= 0.0) * (p.factor * d_loss[0]);
    }
}
