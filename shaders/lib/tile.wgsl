// One BM x BN tile of a matrix product, by a workgroup that shares what it loads: slabs of both matrices, BK of the
// reduction deep, go through workgroup memory, and each invocation keeps TM x TN sums in registers. While the products
// of one slab are summed, the next slab is already on its way from memory into registers.
//
// The matrices are loaded by the kernel in blocks of four by four: a mat4x4f whose column i holds four rows of the
// left-hand matrix (or four columns of the right-hand one) at reduction index kk + i. The kernel declares
//   struct Left                                        what is fixed of four rows: positions of their pixels
//   fn left_of(row: u32) -> Left                       of rows row..row+4
//   fn load_left(rows: Left, kk: u32) -> mat4x4f       zero past the end of the reduction
//   fn load_right(column: u32, kk: u32) -> mat4x4f     any finite value past the end
//   LEFT_ALONG, RIGHT_ALONG                            whether neighbours in memory are neighbours in the reduction
//
// BM, BN, BK, TM and TN are powers of two; BM and BN are at least 16, the others at least 4.

const LANES_M: u32 = BM / TM;
const LANES_N: u32 = BN / TN;
const LANES: u32 = LANES_M * LANES_N;
const LEFT_BLOCKS: u32 = BM * BK / 16u;
const BLOCKS: u32 = LEFT_BLOCKS + BN * BK / 16u;
const ROUNDS: u32 = (BLOCKS + LANES - 1u) / LANES; // blocks that an invocation loads
const LEFT_ROUNDS: u32 = (LEFT_BLOCKS + LANES - 1u) / LANES; // in which some invocation loads from the left

alias Sums = array<array<vec4f, TN / 4u>, TM>;

var<workgroup> left_slab: array<vec4f, BM / 4u * BK>;
var<workgroup> right_slab: array<vec4f, BN / 4u * BK>;

/// Where four values at depth kk of a slab lie. Blocks at different depths go to different memory banks, so that
/// neighbours in the reduction are stored without conflicts.
fn slot(kk: u32, four: u32, fours: u32) -> u32 {
    return kk * fours + (four ^ (kk / 4u * 2u & (min(fours, 8u) - 1u)));
}

/// Block number to its place in a slab: which four rows or columns, which four of the reduction.
fn place(block: u32, fours: u32, along: bool) -> vec2u {
    if along {
        return vec2u(block / (BK / 4u), block % (BK / 4u));
    }
    return vec2u(block % fours, block / fours);
}

/// The tile's row that sum i of an invocation belongs to.
fn tile_row(local: u32, i: u32) -> u32 {
    return (local / LANES_N + i / 4u * LANES_M) * 4u + i % 4u;
}

/// The tile's column that vector j of an invocation begins with.
fn tile_column(local: u32, j: u32) -> u32 {
    return (local % LANES_N + j * LANES_N) * 4u;
}

/// Adds up the products of reduction indices begin to end for the tile at (row, column). All invocations take part.
fn multiply(local: u32, row: u32, column: u32, begin: u32, end: u32, sums: ptr<function, Sums>) {
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN / 4u; j++) {
            (*sums)[i][j] = vec4f();
        }
    }
    var rows: array<Left, LEFT_ROUNDS>;
    for (var j = 0u; j < LEFT_ROUNDS; j++) {
        rows[j] = left_of(row + 4u * place(min(local + j * LANES, LEFT_BLOCKS - 1u), BM / 4u, LEFT_ALONG).x);
    }
    var next: array<mat4x4f, ROUNDS>;
    for (var slab = begin; slab < end + BK; slab += BK) {
        // One round more than there are slabs: a round loads the next slab and sums the one before.
        if slab > begin {
            workgroupBarrier();
            for (var j = 0u; j < ROUNDS; j++) {
                store_block(local + j * LANES, next[j]);
            }
            workgroupBarrier();
        }
        if slab < end {
            for (var j = 0u; j < ROUNDS; j++) {
                let block = local + j * LANES;
                if j < LEFT_ROUNDS && block < LEFT_BLOCKS {
                    let at = place(block, BM / 4u, LEFT_ALONG);
                    next[j] = load_left(rows[min(j, LEFT_ROUNDS - 1u)], slab + 4u * at.y);
                } else if block < BLOCKS {
                    let at = place(block - LEFT_BLOCKS, BN / 4u, RIGHT_ALONG);
                    next[j] = load_right(column + 4u * at.x, slab + 4u * at.y);
                }
            }
        }
        if slab > begin {
            sum_slab(local, sums);
        }
    }
}

/// Puts a loaded block into its slab.
fn store_block(block: u32, values: mat4x4f) {
    if block < LEFT_BLOCKS {
        let at = place(block, BM / 4u, LEFT_ALONG);
        for (var i = 0u; i < 4u; i++) {
            left_slab[slot(4u * at.y + i, at.x, BM / 4u)] = values[i];
        }
    } else if block < BLOCKS {
        let at = place(block - LEFT_BLOCKS, BN / 4u, RIGHT_ALONG);
        for (var i = 0u; i < 4u; i++) {
            right_slab[slot(4u * at.y + i, at.x, BN / 4u)] = values[i];
        }
    }
}

/// Adds the products of the slabs in workgroup memory.
fn sum_slab(local: u32, sums: ptr<function, Sums>) {
    for (var kk = 0u; kk < BK; kk++) {
        var b: array<vec4f, TN / 4u>;
        for (var j = 0u; j < TN / 4u; j++) {
            b[j] = right_slab[slot(kk, local % LANES_N + j * LANES_N, BN / 4u)];
        }
        for (var i = 0u; i < TM / 4u; i++) {
            let a = left_slab[slot(kk, local / LANES_N + i * LANES_M, BM / 4u)];
            for (var v = 0u; v < 4u; v++) {
                for (var j = 0u; j < TN / 4u; j++) {
                    (*sums)[4u * i + v][j] = fma(vec4f(a[v]), b[j], (*sums)[4u * i + v][j]);
                }
            }
        }
    }
}
