// The sum over the lanes of a workgroup. The shader says what is summed, `alias Summed = f32;` or a vector, and `WG`, a power of two.

var<workgroup> lanes: array<Summed, WG>;

/// The sum of all lanes' values, in every lane. Once in an entry point: a second call may overwrite what is still read.
fn lane_sum(value: Summed, lane: u32) -> Summed {
    lanes[lane] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lanes[lane] += lanes[lane + half];
        }
        workgroupBarrier();
    }
    return lanes[0];
}
