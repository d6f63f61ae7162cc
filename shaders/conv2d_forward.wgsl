// 2-D convolution as an implicit matrix product without groups: y[pixel, k] = sum over (r, s, c) of x[pixel at tap (r,
// s), c] * w[(r, s, c), k]. A lane owns ROWS output pixels by COLUMNS output channels in registers; LANES_M by LANES_N
// lanes make a workgroup. Activations come in through `spread` (loaded once in a subgroup and passed around, or loaded
// by every lane), XV channels at a time; columns (weights, bias, results) as vec4 or one by one.
//
// All loads of a step come first and the products go row by row: a row's sums stay in registers for XV products, which
// matters where the whole tile does not fit into them.

const VECTORS: u32 = COLUMNS / 4u; // of four columns
const LOADS: u32 = ROWS / SPREAD; // pixels that a lane loads for
const OUT: u32 = 4u; // binding of the result

alias Result = E;
alias Result4 = E4;

// Bindings, declared by the linker and by the libraries that store:
// 1 activations: x [N, H, W, C]; 2 columns_in: w [R, S, C, K]; 3 bias [K] (any tensor if !HAS_BIAS); 4 y [N, P, Q, K];
// 5 residual [N, P, Q, K], if there is one; or 5 and 6 the statistics of runs of ROWS rows [runs, K]

@compute @workgroup_size(LANES_M * LANES_N)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) local: u32) {
    let lane = local % LANES_N;
    let first_row = (group_index(workgroup) * LANES_M + local / LANES_N) * ROWS;
    let column = (workgroup.z * LANES_N + lane) * COLUMNS;
    let rows = p.n * p.out_h * p.out_w;

    // Position of tap (0, 0) of the pixels this lane loads for; a pixel past the end gets one that is out of range.
    var top: array<u32, LOADS>;
    var left: array<u32, LOADS>;
    var image: array<u32, LOADS>;
    for (var j = 0u; j < LOADS; j++) {
        let row = first_row + loaded_block(lane, j);
        let q = row % p.out_w;
        let o = (row / p.out_w) % p.out_h;
        image[j] = row / p.out_w / p.out_h * p.h;
        top[j] = select(0x40000000u, o * p.stride_h - p.pad_top, row < rows);
        left[j] = q * p.stride_w - p.pad_left;
    }

    var acc: array<array<vec4f, VECTORS>, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < VECTORS; j++) {
            acc[i][j] = vec4f();
        }
    }
    for (var r = 0u; r < p.r; r++) {
        for (var s = 0u; s < p.s; s++) {
            var inside: array<bool, LOADS>;
            var pixel: array<u32, LOADS>;
            for (var j = 0u; j < LOADS; j++) {
                let h = top[j] + r * p.dilation_h;
                let w = left[j] + s * p.dilation_w;
                inside[j] = h < p.h && w < p.w;
                pixel[j] = select(0u, ((image[j] + h) * p.w + w) * p.c, inside[j]);
            }
            let tap = (r * p.s + s) * p.c;
            for (var c = 0u; c < p.c; c += XV) {
                var x: array<vec4f, LOADS>;
                for (var j = 0u; j < LOADS; j++) {
                    x[j] = select(vec4f(), load_activation(pixel[j] + c), inside[j]);
                }
                var b: array<array<vec4f, VECTORS>, XV>;
                for (var v = 0u; v < XV; v++) {
                    for (var j = 0u; j < VECTORS; j++) {
                        b[v][j] = load_columns(tap + c + v, column + 4u * j);
                    }
                }
                for (var i = 0u; i < ROWS; i++) {
                    for (var v = 0u; v < XV; v++) {
                        let a = vec4f(spread(x[i / SPREAD][v], i % SPREAD));
                        for (var j = 0u; j < VECTORS; j++) {
                            acc[i][j] = fma(a, b[v][j], acc[i][j]);
                        }
                    }
                }
            }
        }
    }
    var moments: array<Moments, VECTORS>;
    for (var i = 0u; i < ROWS; i++) {
        let row = first_row + i;
        if WHOLE_ROWS || row < rows {
            for (var j = 0u; j < VECTORS; j++) {
                let at = column + 4u * j;
                let y = tail(row, at, acc[i][j] + load_bias(at));
                store_columns(row, at, y);
                moments[j] = noted(moments[j], vec4f(Result4(y)));
            }
        }
    }
    for (var j = 0u; j < VECTORS; j++) {
        keep_moments(first_row / ROWS, column + 4u * j, moments[j]);
    }
}

/// Columns of the right-hand and the result matrix.
fn width() -> u32 {
    return p.k;
}
