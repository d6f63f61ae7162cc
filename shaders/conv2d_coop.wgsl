// 2-D convolution without groups, or one of its gradients, as a product of cooperative matrices: f16 factors, f32 sums.
// The left-hand matrix is never built ("implicit GEMM"): the SUBGROUPS_M by SUBGROUPS_N subgroups of a workgroup load slices
// of both factors into workgroup memory, filled up with zeros, and multiply them from there. A subgroup owns FRAGMENTS_M by
// FRAGMENTS_N matrices of the result. If AHEAD, the next slice is on its way from memory while one is multiplied. What is
// multiplied, and where the result goes, is said by a library:
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

const SUBGROUPS: u32 = SUBGROUPS_M * SUBGROUPS_N;
const THREADS: u32 = SUBGROUPS * LANES;
const SIDE_M: u32 = SUBGROUPS_M * FRAGMENTS_M * MATRIX; // of a workgroup's part of the result
const SIDE_N: u32 = SUBGROUPS_N * FRAGMENTS_N * MATRIX;
const DEPTH: u32 = 2u * MATRIX; // of a slice
const QUADS_A: u32 = SIDE_M * DEPTH / 4u / THREADS; // that a lane loads of a slice
const QUADS_B: u32 = SIDE_N * DEPTH / 4u / THREADS;

// Rows of a slice in memory, longer by eight elements so that columns do not fall onto the same banks.
const LENGTH_A: u32 = select(SIDE_M, DEPTH, A_BY_ROWS) + 8u;
const LENGTH_B: u32 = select(DEPTH, SIDE_N, B_BY_ROWS) + 8u;

var<workgroup> slice_a: array<f16, LENGTH_A * select(DEPTH, SIDE_M, A_BY_ROWS)>;
var<workgroup> slice_b: array<f16, LENGTH_B * select(SIDE_N, DEPTH, B_BY_ROWS)>;
var<workgroup> result: array<f32, SUBGROUPS * MATRIX * MATRIX>; // one matrix a subgroup

/// The row (or column) and the reduction element of a lane's load number j, within a slice whose side is `side`.
fn place(j: u32, local: u32, side: u32, along_reduction: bool) -> vec2u {
    let quad = j * THREADS + local;
    if along_reduction {
        return vec2u(quad / (DEPTH / 4u), quad % (DEPTH / 4u) * 4u);
    }
    return vec2u(quad % (side / 4u) * 4u, quad / (side / 4u));
}

/// What a lane loads of the slices from reduction element k on.
struct Loaded {
    a: array<vec4<f16>, QUADS_A>,
    b: array<vec4<f16>, QUADS_B>,
}

fn load(local: u32, first: vec2u, located: ptr<function, array<vec3u, QUADS_A>>, k: u32, end: u32) -> Loaded {
    var loaded: Loaded;
    for (var j = 0u; j < QUADS_A; j++) {
        let a = place(j, local, SIDE_M, A_BY_ROWS);
        if k + a.y < end {
            loaded.a[j] = quad_a((*located)[j], first.x + a.x, k + a.y);
        }
    }
    for (var j = 0u; j < QUADS_B; j++) {
        let b = place(j, local, SIDE_N, !B_BY_ROWS);
        if k + b.y < end {
            loaded.b[j] = quad_b(k + b.y, first.y + b.x);
        }
    }
    return loaded;
}

fn share(local: u32, loaded: ptr<function, Loaded>) {
    for (var j = 0u; j < QUADS_A; j++) {
        let a = place(j, local, SIDE_M, A_BY_ROWS);
        let at = select(a.y * LENGTH_A + a.x, a.x * LENGTH_A + a.y, A_BY_ROWS);
        let v = (*loaded).a[j];
        slice_a[at] = v.x;
        slice_a[at + 1u] = v.y;
        slice_a[at + 2u] = v.z;
        slice_a[at + 3u] = v.w;
    }
    for (var j = 0u; j < QUADS_B; j++) {
        let b = place(j, local, SIDE_N, !B_BY_ROWS);
        let at = select(b.x * LENGTH_B + b.y, b.y * LENGTH_B + b.x, B_BY_ROWS);
        let v = (*loaded).b[j];
        slice_b[at] = v.x;
        slice_b[at + 1u] = v.y;
        slice_b[at + 2u] = v.z;
        slice_b[at + 3u] = v.w;
    }
}

@compute @workgroup_size(THREADS)
fn product(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let part = begin(workgroup.z);
    let first = vec2u(group_index(workgroup) * SIDE_M, part.x * SIDE_N);
    var located: array<vec3u, QUADS_A>;
    for (var j = 0u; j < QUADS_A; j++) {
        located[j] = locate(first.x + place(j, local, SIDE_M, A_BY_ROWS).x);
    }
    var sums: array<array<MatrixC, FRAGMENTS_N>, FRAGMENTS_M>;
    let row_in = subgroup / SUBGROUPS_N * FRAGMENTS_M * MATRIX;
    let column_in = subgroup % SUBGROUPS_N * FRAGMENTS_N * MATRIX;

    var loaded: Loaded;
    if AHEAD {
        loaded = load(local, first, &located, part.y, part.z);
    }
    for (var k = part.y; k < part.z; k += DEPTH) {
        if !AHEAD {
            loaded = load(local, first, &located, k, part.z);
        }
        share(local, &loaded);
        workgroupBarrier();
        if AHEAD {
            loaded = load(local, first, &located, k + DEPTH, part.z);
        }
        for (var step = 0u; step < DEPTH; step += MATRIX) {
            var b: array<MatrixB, FRAGMENTS_N>;
            for (var j = 0u; j < FRAGMENTS_N; j++) {
                b[j] = fragment_b(step, column_in + j * MATRIX);
            }
            for (var i = 0u; i < FRAGMENTS_M; i++) {
                let a = fragment_a(row_in + i * MATRIX, step);
                for (var j = 0u; j < FRAGMENTS_N; j++) {
                    sums[i][j] = coopMultiplyAdd(a, b[j], sums[i][j]);
                }
            }
        }
        workgroupBarrier();
    }

    let mine = subgroup * MATRIX * MATRIX;
    var moments: array<Moments, FRAGMENTS_N>;
    for (var i = 0u; i < FRAGMENTS_M; i++) {
        for (var j = 0u; j < FRAGMENTS_N; j++) {
            let stride = MATRIX;
            coopStoreT(sums[i][j], &result[mine], stride);
            workgroupBarrier();
            for (var e = lane; e < MATRIX * MATRIX; e += LANES) {
                let row = first.x + row_in + i * MATRIX + e / MATRIX;
                let column = first.y + column_in + j * MATRIX + e % MATRIX;
                if row < rows() && column < width() {
                    moments[j] = noted(moments[j], store(row, column, result[mine + e]));
                }
            }
            workgroupBarrier();
        }
    }
    for (var j = 0u; j < FRAGMENTS_N; j++) {
        keep_moments(lane, first.x + row_in, first.y + column_in + j * MATRIX + lane % MATRIX, moments[j]);
    }
}
