// How many multiply-adds a device does in a second by cooperative matrices: independent chains of them in registers, for
// benchmarks. A subgroup of LANES has CHAINS sums; from the host: CHAINS, STEPS products of each in a round, LANES, MATRIX.

struct Params {
    rounds: u32,
}

const SUBGROUPS: u32 = 4u;
const WG: u32 = SUBGROUPS * LANES;
const AREA: u32 = MATRIX * MATRIX;

// Loaded, so that no compiler knows them.
@group(0) @binding(1) var<storage, read> left: array<f32>; // [MATRIX, MATRIX]
@group(0) @binding(2) var<storage, read> right: array<f32>; // [MATRIX, MATRIX]
@group(0) @binding(3) var<storage, read_write> sums_out: array<f32>; // [workgroups, SUBGROUPS, CHAINS, MATRIX, MATRIX]

var<workgroup> factor_a: array<f16, AREA>;
var<workgroup> factor_b: array<f16, AREA>;
var<workgroup> result: array<f32, SUBGROUPS * AREA>; // one matrix a subgroup

/// Each chain: rounds * STEPS times the product of left and right.
@compute @workgroup_size(WG)
fn products(
    @builtin(workgroup_id) workgroup: vec3u,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    for (var e = local; e < AREA; e += WG) {
        factor_a[e] = f16(left[e]);
        factor_b[e] = f16(right[e]);
    }
    workgroupBarrier();
    let stride = MATRIX;
    let a = coopLoadT<MatrixA>(&factor_a[0], stride);
    let b = coopLoadT<MatrixB>(&factor_b[0], stride);
    var sums: array<MatrixC, CHAINS>;
    for (var round = 0u; round < p.rounds; round++) {
        for (var step = 0u; step < STEPS; step++) {
            for (var c = 0u; c < CHAINS; c++) {
                sums[c] = coopMultiplyAdd(a, b, sums[c]);
            }
        }
    }
    let mine = subgroup * AREA;
    for (var c = 0u; c < CHAINS; c++) {
        coopStoreT(sums[c], &result[mine], stride);
        workgroupBarrier();
        let to = ((group_index(workgroup) * SUBGROUPS + subgroup) * CHAINS + c) * AREA;
        for (var e = lane; e < AREA; e += LANES) {
            sums_out[to + e] = result[mine + e];
        }
        workgroupBarrier();
    }
}
