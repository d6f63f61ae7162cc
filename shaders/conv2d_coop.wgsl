// 2-D convolution without groups, or one of its gradients, as a product of cooperative matrices: f16 factors, f32 sums.
// The left-hand matrix is never built ("implicit GEMM"): the four subgroups of a workgroup load slices of both factors
// into workgroup memory, filled up with zeros, and multiply them from there. A subgroup owns FRAGMENTS by FRAGMENTS
// matrices of the result. What is multiplied, and where the result goes, is said by a library:
//
// rows(), width(): extents of the result
// begin(z): column tile, first and one past the last element of the reduction, for workgroup z
// locate(row): what is fixed of a row of the left-hand matrix
// index_a(located, k), index_b(k, column): where an element lies, or NOWHERE if it is zero
// store(row, column, value): a result of the forward pass is returned as it was rounded
//
// Another library keeps the statistics of the results, or nothing. Two more load elements by fours: along the reduction
// where A_BY_ROWS (not B_BY_ROWS), else along the result.

const NOWHERE: u32 = 0xffffffffu;
const FAR: u32 = 0x40000000u; // a position outside of every image

const THREADS: u32 = 4u * LANES;
const SIDE: u32 = 2u * FRAGMENTS * MATRIX; // of a workgroup's part of the result
const DEPTH: u32 = 2u * MATRIX; // of a slice
const QUADS: u32 = SIDE * DEPTH / 4u / THREADS; // that a lane loads of each factor's slice

// Rows of a slice in memory, longer by eight elements so that columns do not fall onto the same banks.
const LENGTH_A: u32 = select(SIDE, DEPTH, A_BY_ROWS) + 8u;
const LENGTH_B: u32 = select(DEPTH, SIDE, B_BY_ROWS) + 8u;

var<workgroup> slice_a: array<f16, LENGTH_A * select(DEPTH, SIDE, A_BY_ROWS)>;
var<workgroup> slice_b: array<f16, LENGTH_B * select(SIDE, DEPTH, B_BY_ROWS)>;
var<workgroup> result: array<f32, 4u * MATRIX * MATRIX>; // one matrix a subgroup

/// The first row (or column) and the first reduction element of a lane's load number j, within a slice.
fn place(j: u32, local: u32, along_reduction: bool) -> vec2u {
    let quad = j * THREADS + local;
    if along_reduction {
        return vec2u(quad / (DEPTH / 4u), quad % (DEPTH / 4u) * 4u);
    }
    return vec2u(quad % (SIDE / 4u) * 4u, quad / (SIDE / 4u));
}

@compute @workgroup_size(THREADS)
fn product(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let part = begin(workgroup.z);
    let first_row = group_index(workgroup) * SIDE;
    let first_column = part.x * SIDE;
    var located: array<vec3u, QUADS>;
    for (var j = 0u; j < QUADS; j++) {
        located[j] = locate(first_row + place(j, local, A_BY_ROWS).x);
    }
    var sums: array<array<MatrixC, FRAGMENTS>, FRAGMENTS>;
    let row_in = subgroup / 2u * FRAGMENTS * MATRIX;
    let column_in = subgroup % 2u * FRAGMENTS * MATRIX;

    for (var k = part.y; k < part.z; k += DEPTH) {
        for (var j = 0u; j < QUADS; j++) {
            let a = place(j, local, A_BY_ROWS);
            let at_a = select(a.y * LENGTH_A + a.x, a.x * LENGTH_A + a.y, A_BY_ROWS);
            var v = vec4<f16>();
            if k + a.y < part.z {
                v = quad_a(located[j], first_row + a.x, k + a.y);
            }
            slice_a[at_a] = v.x;
            slice_a[at_a + 1u] = v.y;
            slice_a[at_a + 2u] = v.z;
            slice_a[at_a + 3u] = v.w;
            let b = place(j, local, !B_BY_ROWS);
            let at_b = select(b.x * LENGTH_B + b.y, b.y * LENGTH_B + b.x, B_BY_ROWS);
            v = vec4<f16>();
            if k + b.y < part.z {
                v = quad_b(k + b.y, first_column + b.x);
            }
            slice_b[at_b] = v.x;
            slice_b[at_b + 1u] = v.y;
            slice_b[at_b + 2u] = v.z;
            slice_b[at_b + 3u] = v.w;
        }
        workgroupBarrier();
        for (var step = 0u; step < DEPTH; step += MATRIX) {
            for (var i = 0u; i < FRAGMENTS; i++) {
                let a = fragment_a(row_in + i * MATRIX, step);
                for (var j = 0u; j < FRAGMENTS; j++) {
                    sums[i][j] = coopMultiplyAdd(a, fragment_b(step, column_in + j * MATRIX), sums[i][j]);
                }
            }
        }
        workgroupBarrier();
    }

    let mine = subgroup * MATRIX * MATRIX;
    var moments: array<Moments, FRAGMENTS>;
    for (var i = 0u; i < FRAGMENTS; i++) {
        for (var j = 0u; j < FRAGMENTS; j++) {
            let stride = MATRIX;
            coopStoreT(sums[i][j], &result[mine], stride);
            workgroupBarrier();
            for (var e = lane; e < MATRIX * MATRIX; e += LANES) {
                let row = first_row + row_in + i * MATRIX + e / MATRIX;
                let column = first_column + column_in + j * MATRIX + e % MATRIX;
                if row < rows() && column < width() {
                    moments[j] = noted(moments[j], store(row, column, result[mine + e]));
                }
            }
            workgroupBarrier();
        }
    }
    for (var j = 0u; j < FRAGMENTS; j++) {
        keep_moments(lane, first_row + row_in, first_column + column_in + j * MATRIX + lane % MATRIX, moments[j]);
    }
}
