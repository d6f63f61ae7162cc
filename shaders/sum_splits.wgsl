// y[i] = sum over splits of partial[split, i], in order: the second pass of a deterministic split reduction.

struct Params {
    count: u32,
    splits: u32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> partial_sums: array<f32>; // [splits, count]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        var total = 0.0;
        for (var split = 0u; split < p.splits; split++) {
            total += partial_sums[split * p.count + i];
        }
        y[i] = total;
    }
}
