// Softmax of the rows of x [rows, columns]. A lane holds V, one element or four; see lib/rows.wgsl for how lanes share
// a row.

struct Params {
    rows: u32,
    columns: u32, // in units of V
}

const LOWEST: f32 = -3.4028234663852886e38;

/// One past the last place of a row; 0 for rows past the end.
fn row_end(row: u32) -> u32 {
    return select(0u, (row + 1u) * p.columns, row < p.rows);
}

// forward
@group(0) @binding(1) var<storage, read> x: array<VX>; // [rows, columns]
@group(0) @binding(2) var<storage, read_write> y: array<VY>; // [rows, columns]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = row_and_lane(workgroup, lane);
    let begin = at.x * p.columns + at.y;
    let end = row_end(at.x);
    var top = V(LOWEST);
    for (var i = begin; i < end; i += LANES) {
        top = max(top, V(x[i]));
    }
    let largest = row_max(largest_of(top), lane);
    var sum = V();
    for (var i = begin; i < end; i += LANES) {
        sum += exp(V(x[i]) - largest);
    }
    // The largest term is one, so this is no less than one.
    let total = row_sum(sum_of(sum), lane);
    for (var i = begin; i < end; i += LANES) {
        y[i] = VY(exp(V(x[i]) - largest) / total);
    }
}

// grad_x
@group(0) @binding(1) var<storage, read> y_saved: array<VX>; // [rows, columns]
@group(0) @binding(2) var<storage, read> d_y: array<VX>; // [rows, columns]
@group(0) @binding(3) var<storage, read_write> d_x: array<VY>; // [rows, columns]

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = row_and_lane(workgroup, lane);
    let begin = at.x * p.columns + at.y;
    let end = row_end(at.x);
    var sum = V();
    for (var i = begin; i < end; i += LANES) {
        sum = fma(V(y_saved[i]), V(d_y[i]), sum);
    }
    let mean = row_sum(sum_of(sum), lane);
    for (var i = begin; i < end; i += LANES) {
        d_x[i] = VY(V(y_saved[i]) * (V(d_y[i]) - mean));
    }
}
