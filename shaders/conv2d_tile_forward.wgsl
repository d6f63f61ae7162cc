// 2-D convolution without groups as an implicit matrix product in workgroup tiles (lib/tile.wgsl): y[pixel, k] = sum
// over (r, s, c) of x[pixel at tap (r, s), c] * w[(r, s, c), k]. The reduction runs over taps and channels as one
// index, so that few channels do not leave slabs half empty.

const OUT: u32 = 4u; // binding of the result
const VECTORS: u32 = TN / 4u; // of four columns, of an invocation
const LEFT_ALONG: bool = true;
const RIGHT_ALONG: bool = false;

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: w [R, S, C, K]; 3 bias [K] (any tensor if !HAS_BIAS); 4 y [N, P, Q, K];
// 5 residual [N, P, Q, K], if there is one; or 5 and 6 the statistics of runs of BM rows [runs, K]

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let row = group_index(workgroup) * BM;
    let column = workgroup.z * BN;
    let rows = p.n * p.out_h * p.out_w;
    if row >= rows {
        return;
    }
    var sums: Sums;
    multiply(local, row, column, 0u, p.r * p.s * p.c, &sums);
    var moments: array<Moments, VECTORS>;
    for (var i = 0u; i < TM; i++) {
        let to = row + tile_row(local, i);
        if to < rows {
            for (var j = 0u; j < VECTORS; j++) {
                let at = column + tile_column(local, j);
                let y = tail(to, at, sums[i][j] + load_bias(at));
                store_columns(to, at, y);
                moments[j] = noted(moments[j], vec4f(Result4(y)));
            }
        }
    }
    keep_moments_of_tile(local, row, column, rows, moments);
}

/// Four output pixels: the position of their tap (0, 0), and the first row of their image.
struct Left {
    top: vec4u,
    left: vec4u,
    image: vec4u,
}

fn left_of(row: u32) -> Left {
    let rows = row + vec4u(0u, 1u, 2u, 3u);
    let q = rows % p.out_w;
    let o = (rows / p.out_w) % p.out_h;
    // A pixel past the end gets a position that is out of range.
    let top = select(vec4u(0x40000000u), o * p.stride_h - p.pad_top, rows < vec4u(p.n * p.out_h * p.out_w));
    return Left(top, q * p.stride_w - p.pad_left, rows / p.out_w / p.out_h * p.h);
}

fn load_left(rows: Left, kk: u32) -> mat4x4f {
    if XV == 4u {
        // Four channels of one tap for each pixel.
        return transpose(mat4x4f(
            load_channels(rows, 0u, kk), load_channels(rows, 1u, kk),
            load_channels(rows, 2u, kk), load_channels(rows, 3u, kk),
        ));
    }
    var block: mat4x4f;
    for (var i = 0u; i < 4u; i++) {
        block[i] = vec4f(
            load_channels(rows, 0u, kk + i).x, load_channels(rows, 1u, kk + i).x,
            load_channels(rows, 2u, kk + i).x, load_channels(rows, 3u, kk + i).x,
        );
    }
    return block;
}

/// Pixel i at reduction index kk: XV channels.
fn load_channels(rows: Left, i: u32, kk: u32) -> vec4f {
    let tap = kk / p.c;
    let h = rows.top[i] + tap / p.s * p.dilation_h;
    let w = rows.left[i] + tap % p.s * p.dilation_w;
    let inside = h < p.h && w < p.w && tap < p.r * p.s;
    let at = select(0u, ((rows.image[i] + h) * p.w + w) * p.c + kk % p.c, inside);
    return select(vec4f(), load_activation(at), inside);
}

fn load_right(column: u32, kk: u32) -> mat4x4f {
    let last = p.r * p.s * p.c - 1u;
    return mat4x4f(
        load_columns(min(kk, last), column), load_columns(min(kk + 1u, last), column),
        load_columns(min(kk + 2u, last), column), load_columns(min(kk + 3u, last), column),
    );
}

/// Columns of the right-hand and the result matrix.
fn width() -> u32 {
    return p.k;
}
