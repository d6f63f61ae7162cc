// Batch normalisation of x [rows, channels]. A workgroup covers LANES_C channels and 64 / LANES_C runs of rows; the
// lanes of a run walk down its rows side by side, so that loads are contiguous and per-channel values stay in
// registers. Workgroups are folded over runs in x and y and count channel tiles in z.

struct Params {
    rows: u32,
    channels: u32,
    run: u32,
    runs: u32,
    eps: f32,
    momentum: f32,
}

const WG: u32 = 64u;

struct Range {
    channel: u32,
    run: u32,
    begin: u32,
    end: u32, // <= begin where there is nothing to do
}

fn range(workgroup: vec3u, lane: u32) -> Range {
    var r: Range;
    r.channel = workgroup.z * LANES_C + lane % LANES_C;
    r.run = group_index(workgroup) * (WG / LANES_C) + lane / LANES_C;
    r.begin = r.run * p.run;
    r.end = select(0u, min(p.rows, r.begin + p.run), r.channel < p.channels && r.run < p.runs);
    return r;
}

/// 1 / sqrt(variance + eps), from the variance itself or as it was saved.
fn inverse_std(value: f32) -> f32 {
    return select(value, 1.0 / sqrt(value + p.eps), FROM_VARIANCE);
}

// --- statistics ---

@group(0) @binding(1) var<storage, read> x: array<E>; // [rows, channels]
@group(0) @binding(2) var<storage, read_write> run_mean: array<f32>; // [runs, channels]
@group(0) @binding(3) var<storage, read_write> run_m2: array<f32>; // [runs, channels]: sum of squared deviations

/// Mean and sum of squared deviations of each run, from sums shifted by the run's first value: one pass without
/// cancellation, because that value is as close to the mean as any.
@compute @workgroup_size(WG)
fn statistics(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let r = range(workgroup, lane);
    if r.begin >= r.end {
        return;
    }
    let shift = f32(x[r.begin * p.channels + r.channel]);
    var sum = 0.0;
    var squares = 0.0;
    for (var row = r.begin + 1u; row < r.end; row++) {
        let v = f32(x[row * p.channels + r.channel]) - shift;
        sum += v;
        squares = fma(v, v, squares);
    }
    let n = f32(r.end - r.begin);
    run_mean[r.run * p.channels + r.channel] = shift + sum / n;
    run_m2[r.run * p.channels + r.channel] = max(squares - sum * sum / n, 0.0);
}

// --- merge ---

@group(0) @binding(1) var<storage, read> means: array<f32>; // [runs, channels]
@group(0) @binding(2) var<storage, read> m2s: array<f32>; // [runs, channels]
@group(0) @binding(3) var<storage, read_write> running_mean: array<f32>; // [channels]
@group(0) @binding(4) var<storage, read_write> running_var: array<f32>; // [channels]
@group(0) @binding(5) var<storage, read_write> mean_out: array<f32>; // [channels]
@group(0) @binding(6) var<storage, read_write> inverse_std_out: array<f32>; // [channels]

/// Merges the runs in order (Chan, Golub and LeVeque, 1979) and moves the running statistics.
@compute @workgroup_size(WG)
fn merge(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(workgroup) * WG + lane;
    if c >= p.channels {
        return;
    }
    var count = 0.0;
    var mean = 0.0;
    var m2 = 0.0;
    for (var run = 0u; run < p.runs; run++) {
        let n = f32(min(p.rows, (run + 1u) * p.run) - run * p.run);
        let delta = means[run * p.channels + c] - mean;
        let total = count + n;
        mean += delta * (n / total);
        m2 += m2s[run * p.channels + c] + delta * delta * (count * n / total);
        count = total;
    }
    mean_out[c] = mean;
    inverse_std_out[c] = 1.0 / sqrt(m2 / count + p.eps);
    running_mean[c] = mix(running_mean[c], mean, p.momentum);
    running_var[c] = mix(running_var[c], m2 / (count - 1.0), p.momentum);
}

// --- normalise ---

@group(0) @binding(2) var<storage, read> mean: array<f32>; // [channels]
@group(0) @binding(3) var<storage, read> deviation: array<f32>; // [channels]: see inverse_std
@group(0) @binding(4) var<storage, read> gamma: array<f32>; // [channels]; any tensor if !HAS_GAMMA
@group(0) @binding(5) var<storage, read> beta: array<f32>; // [channels]
@group(0) @binding(6) var<storage, read_write> y: array<E>; // [rows, channels]

@compute @workgroup_size(WG)
fn normalise(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let r = range(workgroup, lane);
    if r.begin >= r.end {
        return;
    }
    let center = mean[r.channel];
    var scale = inverse_std(deviation[r.channel]);
    if HAS_GAMMA {
        scale *= gamma[r.channel];
    }
    let offset = beta[r.channel];
    for (var row = r.begin; row < r.end; row++) {
        let i = row * p.channels + r.channel;
        y[i] = E(fma(f32(x[i]) - center, scale, offset));
    }
}
