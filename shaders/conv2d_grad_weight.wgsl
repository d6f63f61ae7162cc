// Weight gradient of a 2-D convolution without groups, as a matrix product with a long reduction:
// d_w[(r, s, c), k] = sum over output pixels of x[pixel at tap (r, s), c] * d_y[pixel, k].
// There are few result tiles and many pixels, so the pixels are split into runs: workgroup z sums run z into
// its own partial result, and sum_splits.wgsl adds the partial results in order (deterministic split-K). A run goes
// PIXELS pixels at a time, so that a row's sums stay in registers for as many products.

const VECTORS: u32 = COLUMNS / 4u; // of four columns
const LOADS: u32 = ROWS / (SPREAD * XV); // blocks of XV rows (channels of one tap) that a lane loads
const OUT: u32 = 3u; // binding of the result

alias Result = f32;
alias Result4 = vec4f;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: d_y [N, P, Q, K]; 3 partial [splits, R * S * C, K]

@compute @workgroup_size(LANES_M * LANES_N)
fn grad_weight(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES_N;
    let first_row = (workgroup.x * LANES_M + local / LANES_N) * ROWS;
    let column = (workgroup.y * LANES_N + lane) * COLUMNS;
    let rows = p.r * p.s * p.c;
    let pixels = p.n * p.out_h * p.out_w;
    let begin = workgroup.z * p.run;
    let end = min(pixels, begin + p.run);

    // What is fixed of the rows this lane loads: the tap's offset from the window's corner, and the first channel.
    var tap_h: array<u32, LOADS>;
    var tap_w: array<u32, LOADS>;
    var channel: array<u32, LOADS>;
    for (var j = 0u; j < LOADS; j++) {
        // Rows past the end repeat the last ones and are not stored.
        let row = min(first_row + loaded_block(lane, j) * XV, rows - XV);
        channel[j] = row % p.c;
        tap_w[j] = row / p.c % p.s * p.dilation_w - p.pad_left;
        tap_h[j] = row / p.c / p.s * p.dilation_h - p.pad_top;
    }

    var acc: array<array<vec4f, VECTORS>, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < VECTORS; j++) {
            acc[i][j] = vec4f();
        }
    }
    for (var first = begin; first < end; first += PIXELS) {
        var x: array<array<vec4f, LOADS>, PIXELS>;
        var b: array<array<vec4f, VECTORS>, PIXELS>;
        for (var u = 0u; u < PIXELS; u++) {
            // A pixel past the end of the run counts as zero.
            let pixel = first + u;
            let q = pixel % p.out_w;
            let o = pixel / p.out_w % p.out_h;
            let n = pixel / p.out_w / p.out_h;
            for (var j = 0u; j < LOADS; j++) {
                let h = o * p.stride_h + tap_h[j];
                let w = q * p.stride_w + tap_w[j];
                let inside = h < p.h && w < p.w && pixel < end;
                let at = select(0u, ((n * p.h + h) * p.w + w) * p.c + channel[j], inside);
                x[u][j] = select(vec4f(), load_activation(at), inside);
            }
            for (var j = 0u; j < VECTORS; j++) {
                b[u][j] = load_columns(min(pixel, end - 1u), column + 4u * j);
            }
        }
        for (var i = 0u; i < ROWS; i++) {
            let block = i / XV;
            for (var u = 0u; u < PIXELS; u++) {
                let a = vec4f(spread(x[u][block / SPREAD][i % XV], block % SPREAD));
                for (var j = 0u; j < VECTORS; j++) {
                    acc[i][j] = fma(a, b[u][j], acc[i][j]);
                }
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        let row = first_row + i;
        if WHOLE_ROWS || row < rows {
            for (var j = 0u; j < VECTORS; j++) {
                store_columns(workgroup.z * rows + row, column + 4u * j, acc[i][j]);
            }
        }
    }
}

/// Columns of the right-hand and the result matrix.
fn width() -> u32 {
    return p.k;
}
