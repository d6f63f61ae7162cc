// Targets as class indices. A row whose label is no class (u32 max, say) is left out.

@group(0) @binding(2) var<storage, read> labels: array<u32>; // [N]

fn counts(row: u32) -> bool {
    return labels[row] < p.k;
}

fn target_share(row: u32, k: u32) -> f32 {
    return select(0.0, 1.0, labels[row] == k);
}

/// The weight of the row's class: the mean is taken over weights.
fn divisor_share(row: u32) -> f32 {
    if labels[row] >= p.k {
        return 0.0;
    }
    return class_weight(labels[row]);
}
