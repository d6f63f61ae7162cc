// Column sums of a matrix [rows, columns] in a fixed order: workgroup row z sums a run of rows into partial result z.

struct Params {
    rows: u32,
    columns: u32,
    run: u32,
}

const WG: u32 = 64u;

@group(0) @binding(1) var<storage, read> x: array<E>; // [rows, columns]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [ceil(rows / run), columns]

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let column = workgroup.x * WG + lane;
    if column < p.columns {
        let end = min(p.rows, (workgroup.y + 1u) * p.run);
        var total = 0.0;
        for (var row = workgroup.y * p.run; row < end; row++) {
            total += f32(x[row * p.columns + column]);
        }
        y[workgroup.y * p.columns + column] = total;
    }
}
