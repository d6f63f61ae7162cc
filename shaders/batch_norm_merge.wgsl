// Merges the statistics of runs of rows into those of longer runs, or of all rows (Chan, Golub and LeVeque, 1979), in
// order. A lane holds V, one channel or four.

struct Params {
    rows: u32,
    channels: u32, // in units of V
    run: u32,
    runs: u32,
    group: u32, // runs that become one
    eps: f32,
    momentum: f32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> means: array<V>; // [runs, channels]
@group(0) @binding(2) var<storage, read> m2s: array<V>; // [runs, channels]

struct Merged {
    count: f32,
    mean: V,
    m2: V,
}

/// Runs begin to end of channel c, merged.
fn merged(c: u32, begin: u32, end: u32) -> Merged {
    var m: Merged;
    for (var run = begin; run < end; run++) {
        let n = f32(min(p.rows, (run + 1u) * p.run) - run * p.run);
        let delta = means[run * p.channels + c] - m.mean;
        let total = m.count + n;
        m.mean += delta * (n / total);
        m.m2 += m2s[run * p.channels + c] + delta * delta * (m.count * n / total);
        m.count = total;
    }
    return m;
}

@group(0) @binding(3) var<storage, read_write> longer_mean: array<V>; // [runs / group, channels]
@group(0) @binding(4) var<storage, read_write> longer_m2: array<V>; // [runs / group, channels]

/// Where there are many runs: a group of them become one.
@compute @workgroup_size(WG)
fn merge_runs(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let begin = i / p.channels * p.group;
    if begin >= p.runs {
        return;
    }
    let m = merged(i % p.channels, begin, min(p.runs, begin + p.group));
    longer_mean[i] = m.mean;
    longer_m2[i] = m.m2;
}

@group(0) @binding(3) var<storage, read_write> running_mean: array<V>; // [channels]
@group(0) @binding(4) var<storage, read_write> running_var: array<V>; // [channels]
@group(0) @binding(5) var<storage, read_write> mean_out: array<V>; // [channels]
@group(0) @binding(6) var<storage, read_write> inverse_std_out: array<V>; // [channels]

/// Merges all runs and moves the running statistics.
@compute @workgroup_size(WG)
fn merge(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let c = group_index(workgroup) * WG + lane;
    if c >= p.channels {
        return;
    }
    let m = merged(c, 0u, p.runs);
    mean_out[c] = m.mean;
    inverse_std_out[c] = 1.0 / sqrt(m.m2 / m.count + p.eps);
    running_mean[c] = mix(running_mean[c], m.mean, V(p.momentum));
    running_var[c] = mix(running_var[c], m.m2 / (m.count - 1.0), V(p.momentum));
}
