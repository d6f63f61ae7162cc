// Data gradient of a depthwise 2-D convolution in strips (lib/strip.wgsl): d_x[pixel, c] = sum over (r, s) of d_y[window at
// tap (r, s), c] * w[(r, s), c]. Position (a, b) of the grid that strips lie in stands for the stride_h by stride_w pixels
// of x at (a * stride_h - pad_top, b * stride_w - pad_left) and behind: the last ones that window (a, b) is the first to
// cover, whatever their phase. They see the windows from (a, b) back to where the last tap is.

const WG: u32 = 64u;
const OUT: u32 = 3u; // binding of the result
// Windows back from (a, b).
const BACK_H: u32 = (p.r - 1u) * p.dilation_h / p.stride_h;
const BACK_W: u32 = (p.s - 1u) * p.dilation_w / p.stride_w;
const WINDOW_H: u32 = BACK_H + 1u;
const WINDOW_W: u32 = COLUMNS + BACK_W;
// The first position with a pixel in x, and one past the last.
const BEGIN_H: u32 = p.pad_top / p.stride_h;
const BEGIN_W: u32 = p.pad_left / p.stride_w;
const END_H: u32 = (p.h - 1u + p.pad_top) / p.stride_h + 1u;
const END_W: u32 = (p.w - 1u + p.pad_left) / p.stride_w + 1u;

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: d_y [N, P, Q, C]; 2 columns_in: w [R, S, 1, C]; 3 d_x [N, H, W, C]

@compute @workgroup_size(WG)
fn grad_input(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let c = i % (p.c / 4u) * 4u;
    let strip = place(i / (p.c / 4u), END_H - BEGIN_H, END_W - BEGIN_W);
    if strip.image >= p.n {
        return;
    }
    var taps: Taps;
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            taps[r][s] = load_columns(r * p.s + s, c);
        }
    }
    let first = BEGIN_H + strip.row;
    let left = BEGIN_W + strip.column;
    var window: array<Row, WINDOW_H>;
    // A step moves the window down: before the first it lies one step higher.
    for (var j = 0u; j < WINDOW_H; j++) {
        if j >= 1u {
            window[j] = load_row(strip.image, first - 1u - BACK_H + j, left - BACK_W, c);
        }
    }
    let end = min(END_H, first + ROWS);
    for (var a = first; a < end; a++) {
        for (var j = 0u; j < WINDOW_H; j++) {
            if j < BACK_H {
                window[j] = window[min(j + 1u, BACK_H)];
            } else {
                window[j] = load_row(strip.image, a, left - BACK_W, c);
            }
        }
        var total: array<array<array<vec4f, COLUMNS>, p.stride_w>, p.stride_h>;
        for (var v = 0u; v < p.stride_h; v++) {
            for (var h = 0u; h < p.stride_w; h++) {
                for (var u = 0u; u < COLUMNS; u++) {
                    total[v][h][u] = vec4f();
                }
            }
        }
        for (var r = 0u; r < p.r; r++) {
            let back_h = r * p.dilation_h / p.stride_h;
            let phase_h = r * p.dilation_h % p.stride_h;
            for (var s = 0u; s < p.s; s++) {
                let back_w = s * p.dilation_w / p.stride_w;
                let phase_w = s * p.dilation_w % p.stride_w;
                for (var u = 0u; u < COLUMNS; u++) {
                    let d = window[BACK_H - back_h][u + BACK_W - back_w];
                    total[phase_h][phase_w][u] = fma(d, taps[r][s], total[phase_h][phase_w][u]);
                }
            }
        }
        for (var v = 0u; v < p.stride_h; v++) {
            let h = a * p.stride_h + v - p.pad_top;
            for (var z = 0u; z < p.stride_w; z++) {
                for (var u = 0u; u < COLUMNS; u++) {
                    let w = (left + u) * p.stride_w + z - p.pad_left;
                    if h < p.h && w < p.w {
                        store_columns((strip.image * p.h + h) * p.w + w, c, total[v][z][u]);
                    }
                }
            }
        }
    }
}

fn map_h() -> u32 {
    return p.out_h;
}

fn map_w() -> u32 {
    return p.out_w;
}

/// Columns of the weight and of the result.
fn width() -> u32 {
    return p.c;
}
