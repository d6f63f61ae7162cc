// Average pooling over windows of R x S pixels: y[n, p, q, c] = sum of x over window (p, q) / divisor, where the
// divisor is R * S with COUNT_INCLUDE_PAD, else the number of pixels of the image under the window.

struct Params {
    count: u32, // elements written
    height: u32, // H
    width: u32, // W
    channels: u32, // C
    out_height: u32, // P
    out_width: u32, // Q
    window_height: u32, // R
    window_width: u32, // S
    stride_height: u32,
    stride_width: u32,
    pad_top: u32,
    pad_left: u32,
}

const WG: u32 = 64u;

// forward
@group(0) @binding(1) var<storage, read> x: array<E>; // [N, H, W, C]
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [N, P, Q, C]

// grad_x
@group(0) @binding(1) var<storage, read> d_y: array<E>; // [N, P, Q, C]
@group(0) @binding(2) var<storage, read_write> d_x: array<E>; // [N, H, W, C]

fn rows_inside(o: u32) -> vec2u {
    return window_inside(o, p.stride_height, p.window_height, p.pad_top, p.height);
}

fn columns_inside(q: u32) -> vec2u {
    return window_inside(q, p.stride_width, p.window_width, p.pad_left, p.width);
}

fn divisor(rows: vec2u, columns: vec2u) -> f32 {
    if COUNT_INCLUDE_PAD {
        return f32(p.window_height * p.window_width);
    }
    return f32((rows.y - rows.x) * (columns.y - columns.x));
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let c = i % p.channels;
    let q = i / p.channels % p.out_width;
    let row = i / (p.channels * p.out_width);
    let rows = rows_inside(row % p.out_height);
    let columns = columns_inside(q);
    let n = row / p.out_height;
    let h0 = row % p.out_height * p.stride_height - p.pad_top; // wraps; h0 + r does not, for r in rows
    let w0 = q * p.stride_width - p.pad_left;
    var total = 0.0;
    for (var r = rows.x; r < rows.y; r++) {
        var at = ((n * p.height + h0 + r) * p.width + w0 + columns.x) * p.channels + c;
        for (var s = columns.x; s < columns.y; s++) {
            total += f32(x[at]);
            at += p.channels;
        }
    }
    y[i] = E(total / divisor(rows, columns));
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i >= p.count {
        return;
    }
    let c = i % p.channels;
    let w = i / p.channels % p.width;
    let row = i / (p.channels * p.width);
    let n = row / p.height;
    let rows = windows_covering(row % p.height, p.stride_height, p.window_height, p.pad_top, p.out_height);
    let columns = windows_covering(w, p.stride_width, p.window_width, p.pad_left, p.out_width);
    var total = 0.0;
    for (var o = rows.x; o < rows.y; o++) {
        for (var q = columns.x; q < columns.y; q++) {
            let at = ((n * p.out_height + o) * p.out_width + q) * p.channels + c;
            total += f32(d_y[at]) / divisor(rows_inside(o), columns_inside(q));
        }
    }
    d_x[i] = E(total);
}
