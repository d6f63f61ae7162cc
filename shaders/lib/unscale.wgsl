// Gradients of a scaled loss.

@group(0) @binding(UNSCALE) var<storage, read> unscaling: array<f32>; // [1]

/// What gradients are multiplied by; 0 if the update is to be skipped.
fn unscale() -> f32 {
    return unscaling[0];
}
