// Mean and sum of squared deviations of the results in each column, for the batch-norm that follows: of the rows of one
// invocation, from sums shifted by the first value, which is as close to the mean as any.

@group(0) @binding(5) var<storage, read_write> run_mean: array<vec4f>; // [runs, width]
@group(0) @binding(6) var<storage, read_write> run_m2: array<vec4f>; // [runs, width]: sum of squared deviations

struct Moments {
    count: f32,
    shift: vec4f,
    sum: vec4f,
    squares: vec4f,
}

/// With one more result.
fn noted(before: Moments, value: vec4f) -> Moments {
    if before.count == 0.0 {
        return Moments(1.0, value, vec4f(), vec4f());
    }
    let v = value - before.shift;
    return Moments(before.count + 1.0, before.shift, before.sum + v, fma(v, v, before.squares));
}

fn mean_of(m: Moments) -> vec4f {
    return m.shift + m.sum / max(m.count, 1.0);
}

fn m2_of(m: Moments) -> vec4f {
    return max(m.squares - m.sum * m.sum / max(m.count, 1.0), vec4f());
}

fn store_moments(run: u32, column: u32, mean: vec4f, m2: vec4f) {
    run_mean[(run * width() + column) / 4u] = mean;
    run_m2[(run * width() + column) / 4u] = m2;
}
