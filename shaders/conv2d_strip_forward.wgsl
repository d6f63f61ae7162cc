// Depthwise 2-D convolution in strips (lib/strip.wgsl): y[pixel, c] = sum over (r, s) of x[pixel at tap (r, s), c] * w[(r,
// s), c]. An invocation computes four channels of a strip of y, a row at a time; neighbours in a workgroup are neighbours
// in memory.

const WG: u32 = 64u;
const OUT: u32 = 4u; // binding of the result
const WINDOW_H: u32 = (p.r - 1u) * p.dilation_h + 1u;
const WINDOW_W: u32 = (COLUMNS - 1u) * p.stride_w + (p.s - 1u) * p.dilation_w + 1u;

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: w [R, S, 1, C]; 3 bias [C] (any tensor if !HAS_BIAS); 4 y [N, P, Q, C];
// 5 residual [N, P, Q, C], if there is one

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let c = i % (p.c / 4u) * 4u;
    let strip = place(i / (p.c / 4u), p.out_h, p.out_w);
    if strip.image >= p.n {
        return;
    }
    var taps: Taps;
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            taps[r][s] = load_columns(r * p.s + s, c);
        }
    }
    let start = load_bias(c);
    let left = strip.column * p.stride_w - p.pad_left;
    var window: array<Row, WINDOW_H>;
    // A step moves the window down: before the first it lies one step higher.
    for (var r = 0u; r < WINDOW_H; r++) {
        if r >= p.stride_h {
            window[r] = load_row(strip.image, (strip.row * p.stride_h - p.pad_top) + (r - p.stride_h), left, c);
        }
    }
    let end = min(p.out_h, strip.row + ROWS);
    for (var o = strip.row; o < end; o++) {
        for (var r = 0u; r < WINDOW_H; r++) {
            if r + p.stride_h < WINDOW_H {
                window[r] = window[min(r + p.stride_h, WINDOW_H - 1u)];
            } else {
                window[r] = load_row(strip.image, o * p.stride_h + r - p.pad_top, left, c);
            }
        }
        var total: array<vec4f, COLUMNS>;
        for (var u = 0u; u < COLUMNS; u++) {
            total[u] = start;
        }
        for (var r = 0u; r < p.r; r++) {
            for (var s = 0u; s < p.s; s++) {
                for (var u = 0u; u < COLUMNS; u++) {
                    let x = window[r * p.dilation_h][u * p.stride_w + s * p.dilation_w];
                    total[u] = fma(x, taps[r][s], total[u]);
                }
            }
        }
        for (var u = 0u; u < COLUMNS; u++) {
            if strip.column + u < p.out_w {
                let pixel = (strip.image * p.out_h + o) * p.out_w + strip.column + u;
                store_columns(pixel, c, tail(pixel, c, total[u]));
            }
        }
    }
}

fn map_h() -> u32 {
    return p.h;
}

fn map_w() -> u32 {
    return p.w;
}

/// Columns of the weight and of the result.
fn width() -> u32 {
    return p.c;
}
