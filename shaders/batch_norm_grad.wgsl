// The gradient of batch normalisation of x [rows, channels]; the layout of workgroups and lanes is that of
// batch_norm.wgsl. Where the planner fused the gradient of a ReLU into it, d_y counts only where the ReLU's output
// is positive.

struct Params {
    rows: u32,
    channels: u32, // in units of V
    run: u32,
    runs: u32,
    eps: f32,
}

const WG: u32 = 64u;

/// 1 / sqrt(variance + eps), from the variance itself or as it was saved.
fn inverse_std(value: V) -> V {
    if FROM_VARIANCE {
        return 1.0 / sqrt(value + p.eps);
    }
    return value;
}

/// Element i of the gradient that arrives.
fn arriving(i: u32) -> V {
    let d = d_y_at(i);
    if MASKED {
        return select(V(), d, relu_y_at(i) > V());
    }
    return d;
}

// 1 d_y, 2 relu_y (any other tensor if !MASKED), 3 x [rows, channels], declared by the linker

// --- both reductions in one pass ---

@group(0) @binding(4) var<storage, read> mean: array<V>; // [channels]
@group(0) @binding(5) var<storage, read_write> run_gamma: array<V>; // [runs, channels]: sum of d_y * (x - mean)
@group(0) @binding(6) var<storage, read_write> run_beta: array<V>; // [runs, channels]: sum of d_y
// 7: d_masked [rows, channels], declared by the library keep_masked

@compute @workgroup_size(WG)
fn sums(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.z * LANES_C + lane % LANES_C;
    let run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    if channel >= p.channels || run >= p.runs {
        return;
    }
    let center = mean[channel];
    var weighted = V();
    var plain = V();
    for (var row = run * p.run; row < min(p.rows, (run + 1u) * p.run); row++) {
        let i = row * p.channels + channel;
        let d = arriving(i);
        weighted = fma(d, x_at(i) - center, weighted);
        plain += d;
        keep(i, d);
    }
    run_gamma[run * p.channels + channel] = weighted;
    run_beta[run * p.channels + channel] = plain;
}

// --- merge ---

@group(0) @binding(1) var<storage, read> runs_gamma: array<V>; // [runs, channels]
@group(0) @binding(2) var<storage, read> runs_beta: array<V>; // [runs, channels]
@group(0) @binding(3) var<storage, read> center: array<V>; // [channels]: the mean
@group(0) @binding(4) var<storage, read> deviation: array<V>; // [channels]: see inverse_std
@group(0) @binding(5) var<storage, read> gamma: array<V>; // [channels]; any tensor if !HAS_GAMMA
@group(0) @binding(6) var<storage, read_write> d_gamma: array<V>; // [channels]
@group(0) @binding(7) var<storage, read_write> d_beta: array<V>; // [channels]
@group(0) @binding(8) var<storage, read_write> coefficients_out: array<V>; // [4, channels]: see grad_x

struct Sums {
    weighted: V,
    plain: V,
}

/// Those of all runs of channel c, in order.
fn summed(c: u32) -> Sums {
    var sums: Sums;
    for (var run = 0u; run < p.runs; run++) {
        sums.weighted += runs_gamma[run * p.channels + c];
        sums.plain += runs_beta[run * p.channels + c];
    }
    return sums;
}

@group(0) @binding(3) var<storage, read_write> total_gamma: array<V>; // [channels]
@group(0) @binding(4) var<storage, read_write> total_beta: array<V>; // [channels]

/// The sums of all runs as one run, for ranks that put theirs together.
@compute @workgroup_size(WG)
fn total(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(workgroup) * WG + lane;
    if c >= p.channels {
        return;
    }
    let sums = summed(c);
    total_gamma[c] = sums.weighted;
    total_beta[c] = sums.plain;
}

/// The sums of all runs, and what grad_x needs of them: gamma / std * (d_y - mean(d_y) - normalised x * mean(d_y *
/// normalised x)) is linear in d_y and x. With running statistics, which do not depend on x, only the first term is left.
@compute @workgroup_size(WG)
fn merge(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(workgroup) * WG + lane;
    if c >= p.channels {
        return;
    }
    let sums = summed(c);
    let inverse = inverse_std(deviation[c]);
    d_gamma[c] = sums.weighted * inverse;
    d_beta[c] = sums.plain;
    var scale = inverse;
    if HAS_GAMMA {
        scale *= gamma[c];
    }
    coefficients_out[c] = scale;
    coefficients_out[p.channels + c] = center[c];
    if FROM_VARIANCE {
        coefficients_out[2u * p.channels + c] = V();
        coefficients_out[3u * p.channels + c] = V();
    } else {
        coefficients_out[2u * p.channels + c] = inverse * inverse * sums.weighted / f32(p.rows);
        coefficients_out[3u * p.channels + c] = sums.plain / f32(p.rows);
    }
}

// --- d_x ---

@group(0) @binding(4) var<storage, read> coefficients: array<V>; // [4, channels]: scale, mean of x, slope, offset
@group(0) @binding(5) var<storage, read_write> d_x: array<VE>; // [rows, channels]

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.z * LANES_C + lane % LANES_C;
    let run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    if channel >= p.channels || run >= p.runs {
        return;
    }
    let scale = coefficients[channel];
    let mean_x = coefficients[p.channels + channel];
    let slope = coefficients[2u * p.channels + channel];
    let offset = coefficients[3u * p.channels + channel];
    for (var row = run * p.run; row < min(p.rows, (run + 1u) * p.run); row++) {
        let i = row * p.channels + channel;
        d_x[i] = VE(scale * (arriving(i) - offset - (x_at(i) - mean_x) * slope));
    }
}

// --- d_x, where statistics, gamma and beta are constants ---

@group(0) @binding(3) var<storage, read> fixed_variance: array<V>; // [channels]
@group(0) @binding(4) var<storage, read> fixed_gamma: array<V>; // [channels]; any tensor if !HAS_GAMMA
@group(0) @binding(5) var<storage, read_write> d_x_frozen: array<VE>; // [rows, channels]

@compute @workgroup_size(WG)
fn grad_x_frozen(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let channel = workgroup.z * LANES_C + lane % LANES_C;
    let run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    if channel >= p.channels || run >= p.runs {
        return;
    }
    var scale = inverse_std(fixed_variance[channel]);
    if HAS_GAMMA {
        scale *= fixed_gamma[channel];
    }
    for (var row = run * p.run; row < min(p.rows, (run + 1u) * p.run); row++) {
        let i = row * p.channels + channel;
        d_x_frozen[i] = VE(scale * arriving(i));
    }
}
