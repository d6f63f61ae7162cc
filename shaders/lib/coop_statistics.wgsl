// Mean and sum of squared deviations of the results in each column, for the batch-norm that follows. A run is the rows of
// one subgroup's part of the result. A lane sees results of one column: LANES is a multiple of MATRIX.

@group(0) @binding(5) var<storage, read_write> run_mean: array<f32>; // [runs, width]
@group(0) @binding(6) var<storage, read_write> run_m2: array<f32>; // [runs, width]: sum of squared deviations

struct Moments {
    count: f32,
    shift: f32, // the first value, which is as close to the mean as any
    sum: f32,
    squares: f32,
}

/// With one more result.
fn noted(before: Moments, value: f32) -> Moments {
    if before.count == 0.0 {
        return Moments(1.0, value, 0.0, 0.0);
    }
    let v = value - before.shift;
    return Moments(before.count + 1.0, before.shift, before.sum + v, fma(v, v, before.squares));
}

/// Merges what the lanes of a column have seen (Chan, Golub and LeVeque, 1979). The subgroup takes part as a whole.
fn keep_moments(lane: u32, row: u32, column: u32, moments: Moments) {
    var count = moments.count;
    let n = max(count, 1.0);
    var mean = moments.shift + moments.sum / n;
    var m2 = max(moments.squares - moments.sum * moments.sum / n, 0.0);
    for (var apart = MATRIX; apart < LANES; apart *= 2u) {
        let other_count = subgroupShuffleXor(count, apart);
        let other_mean = subgroupShuffleXor(mean, apart);
        let other_m2 = subgroupShuffleXor(m2, apart);
        let total = max(count + other_count, 1.0);
        let delta = other_mean - mean;
        m2 += other_m2 + delta * delta * (count * other_count / total);
        mean += delta * (other_count / total);
        count += other_count;
    }
    if lane < MATRIX && count > 0.0 && column < width() {
        let at = row / (FRAGMENTS_M * MATRIX) * width() + column;
        run_mean[at] = mean;
        run_m2[at] = m2;
    }
}
