// Layer normalisation of the rows of x [rows, columns]. A lane holds V, one element or four; see lib/rows.wgsl for how
// lanes share a row. All of a row is taken relative to its first element, so that a large mean costs no digits.

struct Params {
    rows: u32,
    columns: u32, // in units of V
    elements: u32, // of a row
    run: u32, // rows summed by one lane: grad_parameters
    runs: u32,
    eps: f32,
}

@group(0) @binding(1) var<storage, read> x: array<VX>; // [rows, columns]

/// The first element of a row; of the last one for rows past the end.
fn origin(row: u32) -> f32 {
    return first_of(V(x[min(row, p.rows - 1u) * p.columns]));
}

/// One past the last place of a row; 0 for rows past the end.
fn row_end(row: u32) -> u32 {
    return select(0u, (row + 1u) * p.columns, row < p.rows);
}

// --- forward ---

@group(0) @binding(2) var<storage, read> gamma: array<V>; // [columns]
@group(0) @binding(3) var<storage, read> beta: array<V>; // [columns]
@group(0) @binding(4) var<storage, read_write> y: array<VY>; // [rows, columns]
@group(0) @binding(5) var<storage, read_write> mean_out: array<f32>; // [rows]: relative to the row's first element
@group(0) @binding(6) var<storage, read_write> inverse_std_out: array<f32>; // [rows]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = row_and_lane(workgroup, lane);
    let shift = origin(at.x);
    let begin = at.x * p.columns + at.y;
    let end = row_end(at.x);
    var sum = V();
    for (var i = begin; i < end; i += LANES) {
        sum += V(x[i]) - shift;
    }
    let mean = row_sum(sum_of(sum), lane) / f32(p.elements);
    var squares = V();
    for (var i = begin; i < end; i += LANES) {
        let v = (V(x[i]) - shift) - mean;
        squares = fma(v, v, squares);
    }
    let inverse_std = 1.0 / sqrt(row_sum(sum_of(squares), lane) / f32(p.elements) + p.eps);
    for (var i = begin; i < end; i += LANES) {
        let c = i - at.x * p.columns;
        y[i] = VY(fma(((V(x[i]) - shift) - mean) * inverse_std, gamma[c], beta[c]));
    }
    if at.x < p.rows && at.y == 0u {
        mean_out[at.x] = mean;
        inverse_std_out[at.x] = inverse_std;
    }
}

// --- gradients ---

@group(0) @binding(2) var<storage, read> d_y: array<VX>; // [rows, columns]
@group(0) @binding(3) var<storage, read> means: array<f32>; // [rows]: as mean_out
@group(0) @binding(4) var<storage, read> inverse_stds: array<f32>; // [rows]

// --- grad_x ---

@group(0) @binding(5) var<storage, read> scale: array<V>; // [columns]: gamma
@group(0) @binding(6) var<storage, read_write> d_x: array<VY>; // [rows, columns]

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = row_and_lane(workgroup, lane);
    let row = min(at.x, p.rows - 1u);
    let shift = origin(at.x);
    let mean = means[row];
    let inverse_std = inverse_stds[row];
    let begin = at.x * p.columns + at.y;
    let end = row_end(at.x);
    var sum = V();
    var products = V();
    for (var i = begin; i < end; i += LANES) {
        let d = V(d_y[i]) * scale[i - at.x * p.columns];
        sum += d;
        products = fma(d, ((V(x[i]) - shift) - mean) * inverse_std, products);
    }
    let d_mean = row_sum(sum_of(sum), lane) / f32(p.elements);
    let d_deviation = row_sum(sum_of(products), lane) / f32(p.elements);
    for (var i = begin; i < end; i += LANES) {
        let d = V(d_y[i]) * scale[i - at.x * p.columns];
        let normalised = ((V(x[i]) - shift) - mean) * inverse_std;
        d_x[i] = VY(inverse_std * (d - d_mean - normalised * d_deviation));
    }
}

// --- grad_parameters: LANES lanes of columns side by side go down a run of rows; tiles of columns are counted in z ---

@group(0) @binding(5) var<storage, read_write> d_gamma: array<V>; // [runs, columns]
@group(0) @binding(6) var<storage, read_write> d_beta: array<V>; // [runs, columns]

@compute @workgroup_size(WG)
fn grad_parameters(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let at = row_and_lane(workgroup, lane);
    let c = workgroup.z * LANES + at.y;
    if at.x >= p.runs || c >= p.columns {
        return;
    }
    var sum = V();
    var products = V();
    let end = min(p.rows, (at.x + 1u) * p.run);
    for (var row = at.x * p.run; row < end; row++) {
        let i = row * p.columns + c;
        let d = V(d_y[i]);
        sum += d;
        products = fma(d, ((V(x[i]) - origin(row)) - means[row]) * inverse_stds[row], products);
    }
    d_gamma[at.x * p.columns + c] = products;
    d_beta[at.x * p.columns + c] = sum;
}
