// Batch normalisation of x [rows, channels]. A lane holds V, one channel or four; a workgroup covers LANES_C lanes of
// channels and 64 / LANES_C runs of rows. The lanes of a run walk down its rows side by side, so that loads are contiguous
// and per-channel values stay in registers. Workgroups are folded over runs in x and y and count channel tiles in z.

struct Params {
    rows: u32,
    channels: u32, // in units of V
    run: u32,
    runs: u32,
    eps: f32,
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
fn inverse_std(value: V) -> V {
    if FROM_VARIANCE {
        return 1.0 / sqrt(value + p.eps);
    }
    return value;
}

// --- statistics ---

// 1 x [rows, channels], declared by the linker
@group(0) @binding(2) var<storage, read_write> run_mean: array<V>; // [runs, channels]
@group(0) @binding(3) var<storage, read_write> run_m2: array<V>; // [runs, channels]: sum of squared deviations

/// Mean and sum of squared deviations of each run, from sums shifted by the run's first value: one pass without
/// cancellation, because that value is as close to the mean as any.
@compute @workgroup_size(WG)
fn statistics(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let r = range(workgroup, lane);
    if r.begin >= r.end {
        return;
    }
    let shift = x_at(r.begin * p.channels + r.channel);
    var sum = V();
    var squares = V();
    for (var row = r.begin + 1u; row < r.end; row++) {
        let v = x_at(row * p.channels + r.channel) - shift;
        sum += v;
        squares = fma(v, v, squares);
    }
    let n = f32(r.end - r.begin);
    run_mean[r.run * p.channels + r.channel] = shift + sum / n;
    run_m2[r.run * p.channels + r.channel] = max(squares - sum * sum / n, V());
}

// --- normalise ---

@group(0) @binding(2) var<storage, read> mean: array<V>; // [channels]
@group(0) @binding(3) var<storage, read> deviation: array<V>; // [channels]: see inverse_std
@group(0) @binding(4) var<storage, read> gamma: array<V>; // [channels]; any tensor if !HAS_GAMMA
@group(0) @binding(5) var<storage, read> beta: array<V>; // [channels]
// 6 residual [rows, channels], declared by the linker; any other tensor if !RESIDUAL
@group(0) @binding(7) var<storage, read_write> y: array<VE>; // [rows, channels]

/// The result, with what the planner fused: plus the residual, then ReLU.
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
        var v = fma(x_at(i) - center, scale, offset);
        if RESIDUAL {
            v += residual_at(i);
        }
        if RELU {
            // NaN stays NaN.
            v = select(v, V(), v <= V());
        }
        y[i] = VE(v);
    }
}
