// Targets as probabilities, or with BY_WEIGHT as shares of labels.

@group(0) @binding(2) var<storage, read> shares: array<f32>; // [N, K]

fn counts(row: u32) -> bool {
    return true;
}

fn target_share(row: u32, k: u32) -> f32 {
    return shares[row * p.k + k];
}

/// The mean is taken over rows, or over weights.
fn divisor_share(row: u32) -> f32 {
    if !BY_WEIGHT {
        return 1.0;
    }
    var weight = 0.0;
    for (var k = 0u; k < p.k; k++) {
        weight = fma(class_weight(k), target_share(row, k), weight);
    }
    return weight;
}
