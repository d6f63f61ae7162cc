// Softmax cross-entropy of logits [N, K], one lane for one row. The target distribution of a row comes from the
// targets library (class indices or probabilities), smoothed: t' = t * (1 - smoothing) + smoothing / K.

struct Params {
    n: u32,
    k: u32,
    smoothing: f32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> logits: array<f32>; // [N, K]
// 2 targets: declared by the targets library
@group(0) @binding(3) var<storage, read> class_weights: array<f32>; // [K]; any tensor if !HAS_WEIGHTS

fn class_weight(k: u32) -> f32 {
    if HAS_WEIGHTS {
        return class_weights[k];
    }
    return 1.0;
}

fn smoothed_target(row: u32, k: u32) -> f32 {
    return fma(target_share(row, k), 1.0 - p.smoothing, p.smoothing / f32(p.k));
}

// --- rows ---

@group(0) @binding(4) var<storage, read_write> row_loss: array<f32>; // [N]
@group(0) @binding(5) var<storage, read_write> row_weights: array<f32>; // [N]: the row's share of the divisor
@group(0) @binding(6) var<storage, read_write> log_sums: array<f32>; // [N]: log of the sum of exponentials

@compute @workgroup_size(WG)
fn rows(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(workgroup) * WG + lane;
    if row >= p.n {
        return;
    }
    let at = row * p.k;
    var top = logits[at];
    for (var k = 1u; k < p.k; k++) {
        top = max(top, logits[at + k]);
    }
    var sum = 0.0;
    for (var k = 0u; k < p.k; k++) {
        sum += exp(logits[at + k] - top);
    }
    // The largest term is one, so the sum is at least one: no logarithm of nearly nothing. The parts are kept apart
    // until the difference to a logit is taken, so that large logits cost no digits.
    let log_sum = log(sum);
    var loss = 0.0;
    if counts(row) {
        for (var k = 0u; k < p.k; k++) {
            loss = fma(class_weight(k) * smoothed_target(row, k), (top - logits[at + k]) + log_sum, loss);
        }
    }
    row_loss[row] = loss;
    row_weights[row] = divisor_share(row);
    log_sums[row] = top + log_sum;
}

// --- total ---

@group(0) @binding(1) var<storage, read> losses: array<f32>; // [N]
@group(0) @binding(2) var<storage, read> weights: array<f32>; // [N]
@group(0) @binding(3) var<storage, read_write> loss_out: array<f32>; // [1]
@group(0) @binding(4) var<storage, read_write> inverse_out: array<f32>; // [1]: one over the divisor, 0 if that is 0

var<workgroup> partial_losses: array<f32, WG>;
var<workgroup> partial_weights: array<f32, WG>;

/// One workgroup: each lane sums every 64th row, then lane 0 sums the lanes, in order.
@compute @workgroup_size(WG)
fn total(@builtin(local_invocation_index) lane: u32) {
    var loss = 0.0;
    var weight = 0.0;
    for (var row = lane; row < p.n; row += WG) {
        loss += losses[row];
        weight += weights[row];
    }
    partial_losses[lane] = loss;
    partial_weights[lane] = weight;
    workgroupBarrier();
    if lane == 0u {
        for (var i = 1u; i < WG; i++) {
            loss += partial_losses[i];
            weight += partial_weights[i];
        }
        let inverse = select(0.0, 1.0 / weight, weight > 0.0);
        loss_out[0] = loss * inverse;
        inverse_out[0] = inverse;
    }
}

// --- gradient ---

@group(0) @binding(4) var<storage, read> saved_log_sums: array<f32>; // [N]
@group(0) @binding(5) var<storage, read> inverse: array<f32>; // [1]
@group(0) @binding(6) var<storage, read> d_loss: array<f32>; // [1]
@group(0) @binding(7) var<storage, read_write> d_logits: array<f32>; // [N, K]

/// d_logits[k] = (softmax[k] * sum_j w_j t'_j - w_k t'_k) * d_loss / divisor.
@compute @workgroup_size(WG)
fn grad_logits(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(workgroup) * WG + lane;
    if row >= p.n {
        return;
    }
    let at = row * p.k;
    let scale = select(0.0, d_loss[0] * inverse[0], counts(row));
    var mass = 0.0;
    for (var k = 0u; k < p.k; k++) {
        mass = fma(class_weight(k), smoothed_target(row, k), mass);
    }
    for (var k = 0u; k < p.k; k++) {
        let probability = exp(logits[at + k] - saved_log_sums[row]);
        d_logits[at + k] = scale * (probability * mass - class_weight(k) * smoothed_target(row, k));
    }
}
