// Weight gradient of a 2-D convolution without groups in workgroup tiles (lib/tile.wgsl): d_w[(r, s, c), k] = sum over
// output pixels of x[pixel at tap (r, s), c] * d_y[pixel, k]. Workgroup z sums run z of the pixels into its own partial
// result; sum_splits.wgsl adds the partial results in order (deterministic split-K).

const OUT: u32 = 3u; // binding of the result
const LEFT_ALONG: bool = false;
const RIGHT_ALONG: bool = false;

alias Result = f32;
alias Result4 = vec4f;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: d_y [N, P, Q, K]; 3 partial [splits, R * S * C, K]

/// One past the last pixel of this workgroup's run.
var<private> run_end: u32;

@compute @workgroup_size(LANES)
fn grad_weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x * BM;
    let column = workgroup.y * BN;
    let rows = p.r * p.s * p.c;
    let begin = workgroup.z * p.run;
    let end = min(p.n * p.out_h * p.out_w, begin + p.run);
    run_end = end;
    var sums: Sums;
    multiply(local, row, column, begin, end, &sums);
    for (var i = 0u; i < TM; i++) {
        let to = row + tile_row(local, i);
        if to < rows {
            for (var j = 0u; j < TN / 4u; j++) {
                store_columns(workgroup.z * rows + to, column + tile_column(local, j), sums[i][j]);
            }
        }
    }
}

/// Four rows: the offset of their tap from the window's corner, and their channel.
struct Left {
    tap_h: vec4u,
    tap_w: vec4u,
    channel: vec4u,
}

fn left_of(row: u32) -> Left {
    // Rows past the end repeat the last one and are not stored.
    let rows = min(row + vec4u(0u, 1u, 2u, 3u), vec4u(p.r * p.s * p.c - 1u));
    let tap = rows / p.c;
    return Left(tap / p.s * p.dilation_h - p.pad_top, tap % p.s * p.dilation_w - p.pad_left, rows % p.c);
}

fn load_left(rows: Left, kk: u32) -> mat4x4f {
    var block: mat4x4f;
    for (var i = 0u; i < 4u; i++) {
        let pixel = kk + i;
        if XV == 4u {
            // The four rows are channels of one tap.
            block[i] = load_channels(rows, 0u, pixel);
        } else {
            block[i] = vec4f(
                load_channels(rows, 0u, pixel).x, load_channels(rows, 1u, pixel).x,
                load_channels(rows, 2u, pixel).x, load_channels(rows, 3u, pixel).x,
            );
        }
    }
    return block;
}

/// Row i at an output pixel: XV channels.
fn load_channels(rows: Left, i: u32, pixel: u32) -> vec4f {
    let h = pixel / p.out_w % p.out_h * p.stride_h + rows.tap_h[i];
    let w = pixel % p.out_w * p.stride_w + rows.tap_w[i];
    let inside = h < p.h && w < p.w && pixel < run_end;
    let at = select(0u, ((pixel / p.out_w / p.out_h * p.h + h) * p.w + w) * p.c + rows.channel[i], inside);
    return select(vec4f(), load_activation(at), inside);
}

fn load_right(column: u32, kk: u32) -> mat4x4f {
    let last = run_end - 1u;
    return mat4x4f(
        load_columns(min(kk, last), column), load_columns(min(kk + 1u, last), column),
        load_columns(min(kk + 2u, last), column), load_columns(min(kk + 3u, last), column),
    );
}

/// Columns of the right-hand and the result matrix.
fn width() -> u32 {
    return p.k;
}
