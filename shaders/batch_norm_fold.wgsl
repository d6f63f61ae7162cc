// Batch-norm with running statistics folded into the convolution before it: w'[i, k] = w[i, k] * gamma[k] / std[k] and
// b'[k] = beta[k] + (b[k] - mean[k]) * gamma[k] / std[k].

struct Params {
    count: u32, // elements of the weight
    channels: u32,
    eps: f32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> variance: array<f32>; // [channels]
@group(0) @binding(2) var<storage, read> gamma: array<f32>; // [channels]; any tensor if !HAS_GAMMA

/// gamma / std
fn factor(k: u32) -> f32 {
    let inverse = 1.0 / sqrt(variance[k] + p.eps);
    if HAS_GAMMA {
        return gamma[k] * inverse;
    }
    return inverse;
}

// --- weight ---

@group(0) @binding(3) var<storage, read> w: array<E>; // [.., channels]
@group(0) @binding(4) var<storage, read_write> folded_w: array<E>; // [.., channels]

@compute @workgroup_size(WG)
fn weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        folded_w[i] = E(f32(w[i]) * factor(i % p.channels));
    }
}

// --- bias ---

@group(0) @binding(3) var<storage, read> mean: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read> beta: array<f32>; // [channels]
@group(0) @binding(5) var<storage, read> b: array<f32>; // [channels]; any tensor if !HAS_BIAS
@group(0) @binding(6) var<storage, read_write> folded_b: array<f32>; // [channels]

@compute @workgroup_size(WG)
fn bias(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let k = group_index(workgroup) * WG + lane;
    if k < p.channels {
        var center = -mean[k];
        if HAS_BIAS {
            center += b[k];
        }
        folded_b[k] = fma(center, factor(k), beta[k]);
    }
}
