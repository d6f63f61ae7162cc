// Sum of all elements in a fixed order, in two stages: each workgroup of `forward` sums a contiguous run of `run`
// elements; it then runs once more over the partial sums with a single workgroup. And the broadcast of a scalar, which
// is the gradient.

struct Params {
    count: u32,
    run: u32,
    factor: f32,
}

const WG: u32 = 64u;
alias Summed = f32;

@group(0) @binding(1) var<storage, read> x: array<f32>; // forward: [count]; broadcast: [1]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // forward: [ceil(count / run)]; broadcast: [count]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let end = min(p.count, (group + 1u) * p.run);
    var total = 0.0;
    for (var i = group * p.run + lane; i < end; i += WG) {
        total += x[i];
    }
    total = lane_sum(total, lane);
    if lane == 0u && group * p.run < p.count {
        y[group] = p.factor * total;
    }
}

@compute @workgroup_size(WG)
fn broadcast(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = p.factor * x[0];
    }
}
