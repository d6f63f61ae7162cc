// Data gradient of a 2-D convolution without groups, as an implicit matrix product by stride phase: d_x[pixel, c] =
// sum over (r, s, k) of d_y[window at tap (r, s), k] * w[(r, s, c), k]. Input pixels whose position has the same
// remainder modulo the stride see the same taps: that is a phase, and workgroup z counts phases within column tiles,
// so that no zero of a dilated gradient is ever loaded. Tiles as in conv2d_forward.wgsl.

const VECTORS: u32 = COLUMNS / 4u; // of four columns
const LOADS: u32 = ROWS / SPREAD; // pixels that a lane loads for
const OUT: u32 = 3u; // binding of the result

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: d_y [N, P, Q, K]; 2 reduction_in: w [R, S, C, K]; 3 d_x [N, H, W, C]

@compute @workgroup_size(LANES_M * LANES_N)
fn grad_input(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let phases = p.stride_h * p.stride_w;
    let phase = workgroup.z % phases;
    let lane = local % LANES_N;
    let first_row = (group_index(workgroup) * LANES_M + local / LANES_N) * ROWS;
    let column = (workgroup.z / phases * LANES_N + lane) * COLUMNS;
    let phase_h = phase / p.stride_w;
    let phase_w = phase % p.stride_w;
    // The first input row with (h + pad_top) % stride_h == phase_h, and how many there are; likewise columns.
    let first_h = (phase_h + p.stride_h - p.pad_top % p.stride_h) % p.stride_h;
    let first_w = (phase_w + p.stride_w - p.pad_left % p.stride_w) % p.stride_w;
    let phase_rows = (max(p.h, first_h) - first_h + p.stride_h - 1u) / p.stride_h;
    let phase_columns = (max(p.w, first_w) - first_w + p.stride_w - 1u) / p.stride_w;
    let rows = p.n * phase_rows * phase_columns;
    if group_index(workgroup) * LANES_M * ROWS >= rows {
        return;
    }

    var top: array<u32, LOADS>;
    var left: array<u32, LOADS>;
    var image: array<u32, LOADS>;
    for (var j = 0u; j < LOADS; j++) {
        let row = first_row + loaded_block(lane, j);
        let w = first_w + row % phase_columns * p.stride_w;
        let h = first_h + row / phase_columns % phase_rows * p.stride_h;
        image[j] = row / phase_columns / phase_rows * p.out_h;
        top[j] = h + p.pad_top;
        // Out of range after any tap is taken off.
        left[j] = select(0x40000000u, w + p.pad_left, row < rows);
    }

    var acc: array<array<vec4f, VECTORS>, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < VECTORS; j++) {
            acc[i][j] = vec4f();
        }
    }
    for (var r = 0u; r < p.r; r++) {
        if (r * p.dilation_h) % p.stride_h != phase_h {
            continue;
        }
        for (var s = 0u; s < p.s; s++) {
            if (s * p.dilation_w) % p.stride_w != phase_w {
                continue;
            }
            var inside: array<bool, LOADS>;
            var pixel: array<u32, LOADS>;
            for (var j = 0u; j < LOADS; j++) {
                // Exact divisions, but for wrapped (negative) positions, which stay out of range.
                let above = top[j] - r * p.dilation_h;
                let before = left[j] - s * p.dilation_w;
                let o = above / p.stride_h;
                let q = before / p.stride_w;
                inside[j] = o < p.out_h && q < p.out_w;
                pixel[j] = select(0u, ((image[j] + o) * p.out_w + q) * p.k, inside[j]);
            }
            let tap = (r * p.s + s) * p.c;
            for (var k = 0u; k < p.k; k += XV) {
                var d: array<vec4f, LOADS>;
                for (var j = 0u; j < LOADS; j++) {
                    d[j] = select(vec4f(), load_activation(pixel[j] + k), inside[j]);
                }
                var b: array<vec4f, COLUMNS>;
                for (var j = 0u; j < COLUMNS; j++) {
                    b[j] = load_reduction((tap + min(column + j, p.c - 1u)) * p.k + k);
                }
                for (var i = 0u; i < ROWS; i++) {
                    for (var v = 0u; v < XV; v++) {
                        let a = vec4f(spread(d[i / SPREAD][v], i % SPREAD));
                        for (var j = 0u; j < VECTORS; j++) {
                            let row = vec4f(b[4u * j][v], b[4u * j + 1u][v], b[4u * j + 2u][v], b[4u * j + 3u][v]);
                            acc[i][j] = fma(a, row, acc[i][j]);
                        }
                    }
                }
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        let row = first_row + i;
        if WHOLE_ROWS || row < rows {
            let w = first_w + row % phase_columns * p.stride_w;
            let h = first_h + row / phase_columns % phase_rows * p.stride_h;
            let pixel = (row / phase_columns / phase_rows * p.h + h) * p.w + w;
            for (var j = 0u; j < VECTORS; j++) {
                store_columns(pixel, column + 4u * j, acc[i][j]);
            }
        }
    }
}

/// Columns of the result matrix.
fn width() -> u32 {
    return p.c;
}
