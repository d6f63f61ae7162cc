//! Class activation maps of a picture, from the activations `[P, C]` of a layer and the gradients of a score by them.

/// Grad-CAM (Selvaraju et al., 2017, equations 1 and 2): with A the activations and G the gradients, the weight of channel k
/// is the mean of `G_pk` over the places p, and the map `max(0, sum_k w_k A_pk)`. Values `[P]`.
pub(super) fn grad_cam(activations: &[f32], gradients: &[f32], channels: usize) -> Vec<f32> {
    let places = (gradients.len() / channels.max(1)).max(1) as f64;
    let mut weights = vec![0.0; channels];
    for gradients in gradients.chunks_exact(channels) {
        weights.iter_mut().zip(gradients).for_each(|(w, &g)| *w += f64::from(g) / places);
    }
    weighted(activations, &weights)
}

/// Grad-CAM++ (Chattopadhay et al., 2018, equations 5, 10 and 19): the weight of channel k is the sum over the places p of
/// `alpha_pk max(0, G_pk)`, where `alpha_pk = G_pk^2 / (2 G_pk^2 + S_k G_pk^3)` and S_k is the sum of `A_pk` over p.
///
/// That is the paper's form for a score that is the exponential of the logit: its second and third derivatives are then
/// powers of the gradient G of the logit, as long as what lies between is piecewise linear. The exponential itself is a
/// factor of all weights, which the map's scale absorbs, so it is left out. Alpha is computed as `1 / (2 + S_k G_pk)`, which
/// is the same, and does not underflow where gradients are small; where that has no value the weight is nothing.
///
/// The paper has activations behind a ReLU in mind. Where they are not, S_k may be negative, and the weights are less
/// meaningful.
pub(super) fn grad_cam_plus_plus(activations: &[f32], gradients: &[f32], channels: usize) -> Vec<f32> {
    let mut sums = vec![0.0; channels];
    for activations in activations.chunks_exact(channels) {
        sums.iter_mut().zip(activations).for_each(|(sum, &a)| *sum += f64::from(a));
    }
    let mut weights = vec![0.0; channels];
    for gradients in gradients.chunks_exact(channels) {
        for ((w, &g), sum) in weights.iter_mut().zip(gradients).zip(&sums) {
            let (g, below) = (f64::from(g), 2.0 + sum * f64::from(g));
            if g > 0.0 && below != 0.0 {
                *w += g / below;
            }
        }
    }
    weighted(activations, &weights)
}

/// The positive part of the weighted sum over the channels.
fn weighted(activations: &[f32], weights: &[f64]) -> Vec<f32> {
    let sum = |a: &[f32]| a.iter().zip(weights).map(|(&a, w)| f64::from(a) * w).sum::<f64>();
    activations.chunks_exact(weights.len()).map(|a| sum(a).max(0.0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three places, two channels.
    const A: [f32; 6] = [1.0, 0.0, 2.0, 3.0, 0.0, 1.0];
    const G: [f32; 6] = [0.5, -1.0, 0.5, 0.0, 2.0, -0.5];

    #[test]
    fn grad_cam_by_hand() {
        // Weights 1 and -1/2: 1, 2 - 3/2, and -1/2, which is cut off.
        assert_eq!(grad_cam(&A, &G, 2), [1.0, 0.5, 0.0]);
    }

    #[test]
    fn grad_cam_plus_plus_by_hand() {
        // Sums of A: 3 and 4. Of the first channel 0.5 / 3.5 twice, and 2 / 8; nothing of the second.
        let weight = 2.0 * 0.5 / 3.5 + 0.25;
        let want = [weight, 2.0 * weight, 0.0];
        for (a, b) in grad_cam_plus_plus(&A, &G, 2).iter().zip(want) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        // As in the paper, with powers.
        let alpha = |g: f64, sum: f64| g.powi(2) / (2.0 * g.powi(2) + sum * g.powi(3));
        let paper: f64 = [0.5, 0.5, 2.0].iter().map(|&g| alpha(g, 3.0) * g).sum();
        assert!((paper - f64::from(weight)).abs() < 1e-6);
    }

    #[test]
    fn tiny_gradients_count_as_large_ones_do() {
        let tiny = G.map(|g| g * 1e-20);
        let (map, half) = (grad_cam_plus_plus(&A, &tiny, 2), grad_cam_plus_plus(&A, &G.map(|g| g * 1e-12), 2));
        assert!(map[0] > 0.0 && (map[1] / map[0] - 2.0).abs() < 1e-5 && (half[1] / half[0] - 2.0).abs() < 1e-5);
    }

    #[test]
    fn what_has_no_value_counts_nothing() {
        // 2 + sum * g is zero.
        assert_eq!(grad_cam_plus_plus(&[-2.0], &[1.0], 1), [0.0]);
        assert!(grad_cam(&[], &[], 3).is_empty());
    }
}
