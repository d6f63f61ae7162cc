// Max pooling over windows of R x S pixels: y[n, p, q, c] = max of x over window (p, q). Padding is never the maximum.
// The first maximum in row-major order wins; a NaN wins over everything. `argmax` is its place r * S + s in the window.

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
const NOWHERE: u32 = 0xffffffffu;

// forward, forward_argmax
// 1 x [N, H, W, C], declared by the linker
@group(0) @binding(2) var<storage, read_write> y: array<E>; // [N, P, Q, C]
@group(0) @binding(3) var<storage, read_write> argmax: array<u32>; // [N, P, Q, C]

// grad_x
// 1 d_y [N, P, Q, C], declared by the linker
@group(0) @binding(2) var<storage, read> argmax_saved: array<u32>; // [N, P, Q, C]
@group(0) @binding(3) var<storage, read_write> d_x: array<E>; // [N, H, W, C]

struct Maximum {
    value: f32,
    place: u32,
}

/// By its bits, so that a compiler that assumes there is no NaN cannot drop the question.
fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

/// The maximum for output element `i`.
fn maximum(i: u32) -> Maximum {
    let c = i % p.channels;
    let q = i / p.channels % p.out_width;
    let row = i / (p.channels * p.out_width);
    let rows = window_inside(row % p.out_height, p.stride_height, p.window_height, p.pad_top, p.height);
    let columns = window_inside(q, p.stride_width, p.window_width, p.pad_left, p.width);
    let n = row / p.out_height;
    let h0 = row % p.out_height * p.stride_height - p.pad_top; // wraps; h0 + r does not, for r in rows
    let w0 = q * p.stride_width - p.pad_left;
    var best = Maximum(0.0, NOWHERE);
    for (var r = rows.x; r < rows.y; r++) {
        var at = ((n * p.height + h0 + r) * p.width + w0 + columns.x) * p.channels + c;
        for (var s = columns.x; s < columns.y; s++) {
            let v = x_at(at);
            if best.place == NOWHERE || v > best.value || (is_nan(v) && !is_nan(best.value)) {
                best = Maximum(v, r * p.window_width + s);
            }
            at += p.channels;
        }
    }
    return best;
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        y[i] = E(maximum(i).value);
    }
}

@compute @workgroup_size(WG)
fn forward_argmax(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    if i < p.count {
        let best = maximum(i);
        y[i] = E(best.value);
        argmax[i] = best.place;
    }
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
    let h = row % p.height;
    let n = row / p.height;
    let rows = windows_covering(h, p.stride_height, p.window_height, p.pad_top, p.out_height);
    let columns = windows_covering(w, p.stride_width, p.window_width, p.pad_left, p.out_width);
    var total = 0.0;
    for (var o = rows.x; o < rows.y; o++) {
        let r = h + p.pad_top - o * p.stride_height;
        for (var q = columns.x; q < columns.y; q++) {
            let s = w + p.pad_left - q * p.stride_width;
            let at = ((n * p.out_height + o) * p.out_width + q) * p.channels + c;
            if argmax_saved[at] == r * p.window_width + s {
                total += d_y_at(at);
            }
        }
    }
    d_x[i] = E(total);
}
