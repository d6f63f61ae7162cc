// Overlap losses of masks. With s the sigmoid of the logits and t the targets, I = sum(s t) and the part that they
// differ in D = sum(s (1 - t) + t (1 - s)) of an image, the loss is D / (I' + D) with I' = share * I + smoothing: soft
// Dice with share 2, since sum(s) + sum(t) = 2 I + D, and soft Jaccard with share 1.

struct Params {
    images: u32,
    elements: u32, // of an image
    run: u32, // elements of an image that one workgroup sums
    runs: u32, // of an image
    share: f32,
    smoothing: f32,
}

const WG: u32 = 64u;
alias Summed = vec2f;

// partial_sums and grad_logits
@group(0) @binding(1) var<storage, read> x: array<f32>; // logits [images, elements]
@group(0) @binding(2) var<storage, read> t: array<f32>; // targets [images, elements]

// partial_sums
@group(0) @binding(3) var<storage, read_write> sums: array<vec2f>; // [images, runs]: I and D

/// Sigmoid of x and of -x, neither by subtraction.
fn sigmoids(x: f32) -> vec2f {
    let e = exp(-abs(x));
    let both = vec2f(1.0, e) / (1.0 + e);
    return select(both.yx, both, x >= 0.0);
}

@compute @workgroup_size(WG)
fn partial_sums(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let image = group / p.runs;
    let first = group % p.runs * p.run;
    let end = select(0u, min(p.elements, first + p.run), image < p.images);
    var sum = vec2f();
    for (var i = first + lane; i < end; i += WG) {
        let target_share = t[image * p.elements + i];
        let s = sigmoids(x[image * p.elements + i]);
        sum += vec2f(s.x * target_share, s.x * (1.0 - target_share) + s.y * target_share);
    }
    sum = lane_sum(sum, lane);
    if lane == 0u && image < p.images {
        sums[group] = sum;
    }
}

// total: one workgroup
@group(0) @binding(1) var<storage, read> parts: array<vec2f>; // [images, runs]
@group(0) @binding(2) var<storage, read> weights: array<f32>; // [images]; any tensor if !HAS_WEIGHTS
@group(0) @binding(3) var<storage, read_write> loss: array<f32>; // [1]
@group(0) @binding(4) var<storage, read_write> slopes: array<vec2f>; // [images]: d_loss / d_s = slopes.x t + slopes.y

fn weight_of(image: u32) -> f32 {
    if HAS_WEIGHTS {
        return weights[image];
    }
    return 1.0;
}

/// The loss and its slopes for I and D; zero where there is nothing at all.
fn loss_of(sum: vec2f) -> vec3f {
    let overlap = p.share * sum.x + p.smoothing;
    let all = overlap + sum.y;
    let inverse = select(0.0, 1.0 / all, all > 0.0);
    let slope = overlap * inverse * inverse;
    return vec3f(sum.y * inverse, -(2.0 * slope + p.share * sum.y * inverse * inverse), slope);
}

@compute @workgroup_size(WG)
fn total(@builtin(local_invocation_index) lane: u32) {
    var sum = vec2f(); // PER_IMAGE: loss and weight; else I and D
    for (var image = lane; image < p.images; image += WG) {
        var own = vec2f();
        for (var run = 0u; run < p.runs; run++) {
            own += parts[image * p.runs + run];
        }
        let weight = weight_of(image);
        if PER_IMAGE {
            let one = loss_of(own);
            sum += weight * vec2f(one.x, 1.0);
            slopes[image] = weight * one.yz;
        } else {
            sum += weight * own;
        }
    }
    sum = lane_sum(sum, lane);
    let batch = loss_of(sum);
    let inverse = select(0.0, 1.0 / sum.y, sum.y > 0.0);
    for (var image = lane; image < p.images; image += WG) {
        if PER_IMAGE {
            slopes[image] *= inverse;
        } else {
            slopes[image] = weight_of(image) * batch.yz;
        }
    }
    if lane == 0u {
        loss[0] = select(batch.x, sum.x * inverse, PER_IMAGE);
    }
}

// grad_logits
@group(0) @binding(3) var<storage, read> saved_slopes: array<vec2f>; // [images]
@group(0) @binding(4) var<storage, read> d_loss: array<f32>; // [1]
@group(0) @binding(5) var<storage, read_write> d_x: array<f32>; // [images, elements]

@compute @workgroup_size(WG)
fn grad_logits(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.images * p.elements {
        let s = sigmoids(x[i]);
        let slope = saved_slopes[i / p.elements];
        d_x[i] = d_loss[0] * fma(slope.x, t[i], slope.y) * (s.x * s.y);
    }
}
