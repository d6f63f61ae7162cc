// Focal loss of softmax: of each row of logits [rows, K] with label y, -w_y (1 - p)^gamma log p with p = softmax_y. One
// lane for one row.

struct Params {
    rows: u32,
    k: u32,
    groups: u32, // partial sums
    gamma: f32,
}

const WG: u32 = 64u;
alias Summed = vec2f;

// rows and grad_logits
@group(0) @binding(1) var<storage, read> logits: array<f32>; // [rows, K]
@group(0) @binding(2) var<storage, read> labels: array<u32>; // [rows]
@group(0) @binding(3) var<storage, read> class_weights: array<f32>; // [K]; any tensor if !HAS_WEIGHTS

struct Softmax {
    top: f32, // the largest logit
    sum: f32, // of exponentials relative to it
    p: f32, // of the label
    rest: f32, // 1 - p, summed up and not subtracted
    log_p: f32,
}

fn softmax(row: u32, label: u32) -> Softmax {
    let at = row * p.k;
    var s: Softmax;
    s.top = logits[at];
    for (var k = 1u; k < p.k; k++) {
        s.top = max(s.top, logits[at + k]);
    }
    let own = exp(logits[at + label] - s.top);
    var others = 0.0;
    for (var k = 0u; k < p.k; k++) {
        if k != label {
            others += exp(logits[at + k] - s.top);
        }
    }
    s.sum = own + others;
    s.p = own / s.sum;
    s.rest = others / s.sum;
    s.log_p = (logits[at + label] - s.top) - log(s.sum);
    if others < own {
        s.log_p = -log_1p(others / own);
    }
    return s;
}

fn class_weight(label: u32) -> f32 {
    if HAS_WEIGHTS {
        return class_weights[label];
    }
    return 1.0;
}

/// (1 - p)^gamma; one for gamma 0.
fn focus(rest: f32) -> f32 {
    return select(pow(max(rest, 1e-37), p.gamma), 1.0, p.gamma == 0.0);
}

// rows
@group(0) @binding(4) var<storage, read_write> sums: array<vec2f>; // [groups]: loss, share of the divisor

@compute @workgroup_size(WG)
fn rows(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let row = group * WG + lane;
    var sum = vec2f();
    if row < p.rows {
        let label = labels[row];
        if label < p.k {
            let s = softmax(row, label);
            let weight = class_weight(label);
            sum = vec2f(-weight * focus(s.rest) * s.log_p, select(1.0, weight, BY_WEIGHT));
        }
    }
    sum = lane_sum(sum, lane);
    if lane == 0u && group < p.groups {
        sums[group] = sum;
    }
}

// total: one workgroup
@group(0) @binding(1) var<storage, read> parts: array<vec2f>; // [groups]
@group(0) @binding(2) var<storage, read_write> loss: array<f32>; // [1]
@group(0) @binding(3) var<storage, read_write> inverse_out: array<f32>; // [1]: one over the divisor, 0 if that is 0

@compute @workgroup_size(WG)
fn total(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2f();
    for (var i = lane; i < p.groups; i += WG) {
        sum += parts[i];
    }
    sum = lane_sum(sum, lane);
    if lane == 0u {
        let inverse = select(0.0, 1.0 / sum.y, sum.y > 0.0);
        loss[0] = sum.x * inverse;
        inverse_out[0] = inverse;
    }
}

// grad_logits
@group(0) @binding(4) var<storage, read> inverse: array<f32>; // [1]
@group(0) @binding(5) var<storage, read> d_loss: array<f32>; // [1]
@group(0) @binding(6) var<storage, read_write> d_logits: array<f32>; // [rows, K]

@compute @workgroup_size(WG)
fn grad_logits(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(workgroup) * WG + lane;
    if row >= p.rows {
        return;
    }
    let label = labels[row];
    let counts = label < p.k;
    let own = select(0u, label, counts);
    let s = softmax(row, own);
    // log p / (1 - p), which tends to -1.
    let ratio = select(-1.0, s.log_p / s.rest, s.rest > 1e-30);
    let slope = class_weight(own) * focus(s.rest) * (p.gamma * s.p * ratio - 1.0);
    let scale = select(0.0, d_loss[0] * inverse[0] * slope, counts);
    let at = row * p.k;
    for (var k = 0u; k < p.k; k++) {
        let probability = exp(logits[at + k] - s.top) / s.sum;
        d_logits[at + k] = scale * select(-probability, s.rest, k == own);
    }
}
