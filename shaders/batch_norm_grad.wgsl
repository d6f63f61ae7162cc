// The gradient of batch normalisation of x [rows, channels]; the layout of workgroups is that of batch_norm.wgsl.

struct Params {
    rows: u32,
    channels: u32,
    run: u32,
    runs: u32,
    eps: f32,
    momentum: f32,
}

const WG: u32 = 64u;

/// 1 / sqrt(variance + eps), from the variance itself or as it was saved.
fn inverse_std(value: f32) -> f32 {
    return select(value, 1.0 / sqrt(value + p.eps), FROM_VARIANCE);
}

@group(0) @binding(1) var<storage, read> x: array<E>; // [rows, channels]
@group(0) @binding(2) var<storage, read> d_y: array<E>; // [rows, channels]
@group(0) @binding(3) var<storage, read> mean: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read> deviation: array<f32>; // [channels]: see inverse_std

// --- both reductions in one pass ---

@group(0) @binding(5) var<storage, read_write> run_gamma: array<f32>; // [runs, channels]: sum of d_y * normalised x
@group(0) @binding(6) var<storage, read_write> run_beta: array<f32>; // [runs, channels]: sum of d_y

@compute @workgroup_size(WG)
fn sums(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.z * LANES_C + lane % LANES_C;
    let run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    if channel >= p.channels || run >= p.runs {
        return;
    }
    let center = mean[channel];
    var weighted = 0.0;
    var plain = 0.0;
    for (var row = run * p.run; row < min(p.rows, (run + 1u) * p.run); row++) {
        let i = row * p.channels + channel;
        let d = f32(d_y[i]);
        weighted = fma(d, f32(x[i]) - center, weighted);
        plain += d;
    }
    run_gamma[run * p.channels + channel] = weighted * inverse_std(deviation[channel]);
    run_beta[run * p.channels + channel] = plain;
}

// --- merge ---

@group(0) @binding(1) var<storage, read> runs_gamma: array<f32>; // [runs, channels]
@group(0) @binding(2) var<storage, read> runs_beta: array<f32>; // [runs, channels]
@group(0) @binding(3) var<storage, read_write> d_gamma_out: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read_write> d_beta_out: array<f32>; // [channels]

@compute @workgroup_size(WG)
fn merge(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(workgroup) * WG + lane;
    if c >= p.channels {
        return;
    }
    var weighted = 0.0;
    var plain = 0.0;
    for (var run = 0u; run < p.runs; run++) {
        weighted += runs_gamma[run * p.channels + c];
        plain += runs_beta[run * p.channels + c];
    }
    d_gamma_out[c] = weighted;
    d_beta_out[c] = plain;
}

// --- d_x ---

@group(0) @binding(5) var<storage, read> gamma: array<f32>; // [channels]; any tensor if !HAS_GAMMA
@group(0) @binding(6) var<storage, read> d_gamma: array<f32>; // [channels]
@group(0) @binding(7) var<storage, read> d_beta: array<f32>; // [channels]
@group(0) @binding(8) var<storage, read_write> d_x: array<E>; // [rows, channels]

/// gamma / std * (d_y - mean(d_y) - normalised x * mean(d_y * normalised x)); with running statistics, which do not
/// depend on x, only the first term.
@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.z * LANES_C + lane % LANES_C;
    let run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    if channel >= p.channels || run >= p.runs {
        return;
    }
    let center = mean[channel];
    let inverse = inverse_std(deviation[channel]);
    var scale = inverse;
    if HAS_GAMMA {
        scale *= gamma[channel];
    }
    var slope = 0.0;
    var offset = 0.0;
    if !FROM_VARIANCE {
        slope = inverse * d_gamma[channel] / f32(p.rows);
        offset = d_beta[channel] / f32(p.rows);
    }
    for (var row = run * p.run; row < min(p.rows, (run + 1u) * p.run); row++) {
        let i = row * p.channels + channel;
        d_x[i] = E(scale * (f32(d_y[i]) - offset - (f32(x[i]) - center) * slope));
    }
}
