// Data gradient of a 2-D convolution without groups, by stride phase as in conv2d_grad_input.wgsl and in workgroup
// tiles (lib/tile.wgsl): d_x[pixel, c] = sum over (r, s, k) of d_y[window at tap (r, s), k] * w[(r, s, c), k]. The
// reduction runs over the taps of the phase and the filters as one index.

const OUT: u32 = 3u; // binding of the result
const LEFT_ALONG: bool = true;
const RIGHT_ALONG: bool = true;

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: d_y [N, P, Q, K]; 2 reduction_in: w [R, S, C, K]; 3 d_x [N, H, W, C]

/// One axis of a phase: its first pixel and how many it has; its first tap, how far apart taps are, how many it has.
struct Axis {
    first: u32,
    pixels: u32,
    tap: u32,
    step: u32,
    taps: u32,
}

var<private> down: Axis;
var<private> across: Axis;

/// The pixels i with (i + pad) % stride == phase, and the taps that reach them.
fn axis_of(phase: u32, size: u32, kernel: u32, stride: u32, pad: u32, dilation: u32) -> Axis {
    let first = (phase + stride - pad % stride) % stride;
    var tap = 0u;
    while tap < kernel && tap * dilation % stride != phase {
        tap++;
    }
    var step = 1u;
    while step * dilation % stride != 0u {
        step++;
    }
    let pixels = (max(size, first) - first + stride - 1u) / stride;
    return Axis(first, pixels, tap, step, (kernel - tap + step - 1u) / step);
}

@compute @workgroup_size(LANES)
fn grad_input(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let phases = p.stride_h * p.stride_w;
    let phase = workgroup.z % phases;
    let row = group_index(workgroup) * BM;
    let column = workgroup.z / phases * BN;
    let vertical = axis_of(phase / p.stride_w, p.h, p.r, p.stride_h, p.pad_top, p.dilation_h);
    let horizontal = axis_of(phase % p.stride_w, p.w, p.s, p.stride_w, p.pad_left, p.dilation_w);
    down = vertical;
    across = horizontal;
    let rows = p.n * vertical.pixels * horizontal.pixels;
    if row >= rows {
        return;
    }
    var sums: Sums;
    multiply(local, row, column, 0u, vertical.taps * horizontal.taps * p.k, &sums);
    for (var i = 0u; i < TM; i++) {
        let at = row + tile_row(local, i);
        if at < rows {
            let w = across.first + at % across.pixels * p.stride_w;
            let h = down.first + at / across.pixels % down.pixels * p.stride_h;
            let pixel = (at / across.pixels / down.pixels * p.h + h) * p.w + w;
            for (var j = 0u; j < TN / 4u; j++) {
                store_columns(pixel, column + tile_column(local, j), sums[i][j]);
            }
        }
    }
}

/// Four pixels of the phase: their padded position, and the first row of d_y of their image.
struct Left {
    top: vec4u,
    left: vec4u,
    image: vec4u,
}

fn left_of(row: u32) -> Left {
    let rows = row + vec4u(0u, 1u, 2u, 3u);
    let w = across.first + rows % across.pixels * p.stride_w;
    let h = down.first + rows / across.pixels % down.pixels * p.stride_h;
    // Past the end: out of range after any tap is taken off.
    let left = select(vec4u(0x40000000u), w + p.pad_left, rows < vec4u(p.n * down.pixels * across.pixels));
    return Left(h + p.pad_top, left, rows / across.pixels / down.pixels * p.out_h);
}

/// The tap (r, s) of a reduction index, and its filter; past the end, one that reads zeros.
fn tap_of(kk: u32) -> vec3u {
    let tap = kk / p.k;
    let r = down.tap + tap / max(across.taps, 1u) * down.step;
    let s = across.tap + tap % max(across.taps, 1u) * across.step;
    return vec3u(r, s, kk % p.k);
}

fn load_left(rows: Left, kk: u32) -> mat4x4f {
    if XV == 4u {
        let tap = tap_of(kk);
        return transpose(mat4x4f(
            load_filters(rows, 0u, tap), load_filters(rows, 1u, tap),
            load_filters(rows, 2u, tap), load_filters(rows, 3u, tap),
        ));
    }
    var block: mat4x4f;
    for (var i = 0u; i < 4u; i++) {
        let tap = tap_of(kk + i);
        block[i] = vec4f(
            load_filters(rows, 0u, tap).x, load_filters(rows, 1u, tap).x,
            load_filters(rows, 2u, tap).x, load_filters(rows, 3u, tap).x,
        );
    }
    return block;
}

/// Pixel i at a tap: XV filters of d_y.
fn load_filters(rows: Left, i: u32, tap: vec3u) -> vec4f {
    // Exact divisions, but for wrapped (negative) positions, which stay out of range.
    let o = (rows.top[i] - tap.x * p.dilation_h) / p.stride_h;
    let q = (rows.left[i] - tap.y * p.dilation_w) / p.stride_w;
    let inside = o < p.out_h && q < p.out_w && tap.x < p.r;
    let at = select(0u, ((rows.image[i] + o) * p.out_w + q) * p.k + tap.z, inside);
    return select(vec4f(), load_activation(at), inside);
}

fn load_right(column: u32, kk: u32) -> mat4x4f {
    if XV == 4u {
        let tap = tap_of(kk);
        return transpose(mat4x4f(
            load_weight(column, tap), load_weight(column + 1u, tap),
            load_weight(column + 2u, tap), load_weight(column + 3u, tap),
        ));
    }
    var block: mat4x4f;
    for (var i = 0u; i < 4u; i++) {
        let tap = tap_of(kk + i);
        block[i] = vec4f(
            load_weight(column, tap).x, load_weight(column + 1u, tap).x,
            load_weight(column + 2u, tap).x, load_weight(column + 3u, tap).x,
        );
    }
    return block;
}

/// XV filters of the weight of a channel at a tap. Channels past the end repeat the last: they are not stored.
fn load_weight(channel: u32, tap: vec3u) -> vec4f {
    let row = min(tap.x, p.r - 1u) * p.s + tap.y;
    return load_reduction((row * p.c + min(channel, p.c - 1u)) * p.k + tap.z);
}

/// Columns of the result matrix.
fn width() -> u32 {
    return p.c;
}
