// Counts an optimizer step, and moves Adam's bias corrections; not in a step that is skipped.

struct Params {
    beta1: f32,
    beta2: f32,
    rest1: f32, // 1 - beta1 and 1 - beta2, from the host's f64
    rest2: f32,
}

@group(0) @binding(1) var<storage, read_write> step: array<u32>; // [1]
@group(0) @binding(CORRECTION) var<storage, read_write> correction: array<f32>; // [2]: 1 - beta^step

@compute @workgroup_size(1)
fn plain() {
    if unscale() != 0.0 {
        step[0] += 1u;
    }
}

/// 1 - beta^t by the recurrence c <- beta * c + (1 - beta): exp and log lose too many digits this close to one.
@compute @workgroup_size(1)
fn adam() {
    if unscale() == 0.0 {
        return;
    }
    step[0] += 1u;
    correction[0] = fma(p.beta1, correction[0], p.rest1);
    correction[1] = fma(p.beta2, correction[1], p.rest2);
}
