// The rows of a workgroup's tile are a run: its invocations' rows are merged in order (Chan, Golub and LeVeque, 1979).
// Slabs are as deep as an invocation's share is wide or deeper, so there is room for this in them.

fn keep_moments_of_tile(local: u32, row: u32, column: u32, rows: u32, moments: array<Moments, VECTORS>) {
    var mine = moments;
    workgroupBarrier();
    for (var j = 0u; j < VECTORS; j++) {
        let at = (local / LANES_N * BN + tile_column(local, j)) / 4u;
        left_slab[at] = mean_of(mine[j]);
        right_slab[at] = m2_of(mine[j]);
    }
    workgroupBarrier();
    for (var four = local; four < BN / 4u && column + 4u * four < width(); four += LANES) {
        var count = 0.0;
        var mean = vec4f();
        var m2 = vec4f();
        for (var m = 0u; m < LANES_M; m++) {
            var n = 0.0;
            for (var i = 0u; i < TM; i += 4u) {
                n += f32(clamp(i32(rows) - i32(row + tile_row(m * LANES_N, i)), 0, 4));
            }
            if n > 0.0 {
                let delta = left_slab[m * BN / 4u + four] - mean;
                let total = count + n;
                mean += delta * (n / total);
                m2 += right_slab[m * BN / 4u + four] + delta * delta * (count * n / total);
                count = total;
            }
        }
        store_moments(row / BM, column + 4u * four, mean, m2);
    }
}
