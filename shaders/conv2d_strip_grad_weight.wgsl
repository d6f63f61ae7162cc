// Weight gradient of a depthwise 2-D convolution in strips (lib/strip.wgsl): d_w[(r, s), c] = sum over output pixels of
// x[pixel at tap (r, s), c] * d_y[pixel, c]. An invocation sums all taps of four channels over a run of strips, and
// sum_splits.wgsl adds the partial results in order.

const WG: u32 = 64u;
const OUT: u32 = 3u; // binding of the result
const WINDOW_H: u32 = (p.r - 1u) * p.dilation_h + 1u;
const WINDOW_W: u32 = (COLUMNS - 1u) * p.stride_w + (p.s - 1u) * p.dilation_w + 1u;

alias Result = f32;
alias Result4 = vec4f;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: d_y [N, P, Q, C]; 3 partial [runs, R * S, C]

@compute @workgroup_size(WG)
fn grad_weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(workgroup) * WG + lane;
    let c = i % (p.c / 4u) * 4u;
    let run = i / (p.c / 4u);
    let strips = p.n * ((p.out_h + ROWS - 1u) / ROWS) * ((p.out_w + COLUMNS - 1u) / COLUMNS);
    if run * p.run >= strips {
        return;
    }
    var total: Taps;
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            total[r][s] = vec4f();
        }
    }
    let end = min(strips, (run + 1u) * p.run);
    for (var j = run * p.run; j < end; j++) {
        let strip = place(j, p.out_h, p.out_w);
        let left = strip.column * p.stride_w - p.pad_left;
        var window: array<Row, WINDOW_H>;
        // A step moves the window down: before the first it lies one step higher.
        for (var r = 0u; r < WINDOW_H; r++) {
            if r >= p.stride_h {
                window[r] = load_row(strip.image, (strip.row * p.stride_h - p.pad_top) + (r - p.stride_h), left, c);
            }
        }
        let bottom = min(p.out_h, strip.row + ROWS);
        for (var o = strip.row; o < bottom; o++) {
            for (var r = 0u; r < WINDOW_H; r++) {
                if r + p.stride_h < WINDOW_H {
                    window[r] = window[min(r + p.stride_h, WINDOW_H - 1u)];
                } else {
                    window[r] = load_row(strip.image, o * p.stride_h + r - p.pad_top, left, c);
                }
            }
            var d: array<vec4f, COLUMNS>;
            for (var u = 0u; u < COLUMNS; u++) {
                // A pixel past the end of its row counts as zero.
                let q = strip.column + u;
                let pixel = (strip.image * p.out_h + o) * p.out_w + min(q, p.out_w - 1u);
                d[u] = select(vec4f(), load_columns(pixel, c), q < p.out_w);
            }
            for (var r = 0u; r < p.r; r++) {
                for (var s = 0u; s < p.s; s++) {
                    for (var u = 0u; u < COLUMNS; u++) {
                        let x = window[r * p.dilation_h][u * p.stride_w + s * p.dilation_w];
                        total[r][s] = fma(x, d[u], total[r][s]);
                    }
                }
            }
        }
    }
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            store_columns((run * p.r + r) * p.s + s, c, total[r][s]);
        }
    }
}

fn map_h() -> u32 {
    return p.h;
}

fn map_w() -> u32 {
    return p.w;
}

/// Columns of d_y and of the result.
fn width() -> u32 {
    return p.c;
}
