// Focal loss of sigmoids, element by element: a (1 - q)^gamma times binary cross-entropy, where q = s t + (1 - s) (1 -
// t) is the probability of being right and a = alpha t + (1 - alpha) (1 - t). Summed in a fixed order: each workgroup
// of `partial_sums` sums a contiguous run, `total` the runs.

struct Params {
    count: u32,
    span: u32, // elements for each weight
    run: u32, // elements that one workgroup sums
    runs: u32,
    gamma: f32,
    alpha: f32, // HAS_ALPHA
}

const WG: u32 = 64u;
alias Summed = vec2f;

// partial_sums and grad_logits
@group(0) @binding(1) var<storage, read> x: array<f32>; // logits [count]
@group(0) @binding(2) var<storage, read> t: array<f32>; // targets [count]
@group(0) @binding(3) var<storage, read> weights: array<f32>; // [count / span]; any tensor if !HAS_WEIGHTS

fn weight_of(i: u32) -> f32 {
    if HAS_WEIGHTS {
        return weights[i / p.span];
    }
    return 1.0;
}

struct Element {
    s: f32, // sigmoid(x)
    not_s: f32, // sigmoid(-x)
    wrong: f32, // 1 - q
    cross_entropy: f32,
    factor: f32, // a (1 - q)^gamma
}

fn element(x: f32, t: f32) -> Element {
    let e = exp(-abs(x));
    let large = 1.0 / (1.0 + e);
    let small = e / (1.0 + e);
    var v: Element;
    v.s = select(small, large, x >= 0.0);
    v.not_s = select(large, small, x >= 0.0);
    v.wrong = v.s * (1.0 - t) + v.not_s * t;
    // For x >= 0 this is x (1 - t), not x - x t, which would cancel.
    v.cross_entropy = select(-x * t, x * (1.0 - t), x >= 0.0) + log_1p(e);
    v.factor = select(pow(max(v.wrong, 1e-37), p.gamma), 1.0, p.gamma == 0.0);
    if HAS_ALPHA {
        v.factor *= p.alpha * t + (1.0 - p.alpha) * (1.0 - t);
    }
    return v;
}

// partial_sums
@group(0) @binding(4) var<storage, read_write> sums: array<vec2f>; // [runs]: loss and weight

@compute @workgroup_size(WG)
fn partial_sums(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let end = select(0u, min(p.count, (group + 1u) * p.run), group < p.runs);
    var sum = vec2f();
    for (var i = group * p.run + lane; i < end; i += WG) {
        let v = element(x[i], t[i]);
        sum += weight_of(i) * vec2f(v.factor * v.cross_entropy, 1.0);
    }
    sum = lane_sum(sum, lane);
    if lane == 0u && group < p.runs {
        sums[group] = sum;
    }
}

// total: one workgroup
@group(0) @binding(1) var<storage, read> parts: array<vec2f>; // [runs]
@group(0) @binding(2) var<storage, read_write> loss: array<f32>; // [1]
@group(0) @binding(3) var<storage, read_write> inverse_out: array<f32>; // [1]: one over the divisor, 0 if that is 0

@compute @workgroup_size(WG)
fn total(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2f();
    for (var i = lane; i < p.runs; i += WG) {
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
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>; // [count]

@compute @workgroup_size(WG)
fn grad_logits(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let v = element(x[i], t[i]);
    // sigmoid(x) - t without cancellation.
    let slope = select(v.s - t[i], (1.0 - t[i]) - v.not_s, x[i] >= 0.0);
    let bend = select(0.0, v.s * v.not_s / v.wrong, v.wrong > 1e-37);
    let d = v.factor * (slope - p.gamma * v.cross_entropy * (2.0 * t[i] - 1.0) * bend);
    d_x[i] = d_loss[0] * inverse[0] * weight_of(i) * d;
}
