// Targets as probabilities.

@group(0) @binding(2) var<storage, read> shares: array<f32>; // [N, K]

fn counts(row: u32) -> bool {
    return true;
}

fn target_share(row: u32, k: u32) -> f32 {
    return shares[row * p.k + k];
}

/// The mean is taken over rows.
fn divisor_share(row: u32) -> f32 {
    return 1.0;
}
