//! Loss weights that make rare classes count: computed from TRAINING labels only.

/// How class weights follow from class counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// `N / (K * n_c)`: N samples, K classes that occur, n_c samples of class c. The weighted sample count is N.
    Balanced,
    /// `median(n) / n_c`: the class of median count weighs 1.
    MedianFrequency,
    /// `1 / n_c`, scaled so that the weights' mean over the classes that occur is 1.
    Inverse,
    /// `(1 - b) / (1 - b^n_c)` with b = 0.999, scaled in the same way (Cui et al., "Class-balanced loss based on effective
    /// number of samples", 2019): beyond some thousand samples more of a class make no difference.
    EffectiveNumber,
}

/// The `b` of [`Weighting::EffectiveNumber`].
const EFFECTIVE_BETA: f64 = 0.999;

/// One weight a class, and what a user should know about them.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassWeights {
    /// The weight of each class, shape `[classes]`; 0 for a class without samples.
    pub weights: Vec<f32>,
    /// One note for each class without samples.
    pub notes: Vec<String>,
}

/// The weights of `classes` from the class indices of the TRAINING samples. Indices without a class are ignored.
pub fn class_weights(
    train_labels: impl IntoIterator<Item = usize>,
    classes: &[String],
    weighting: Weighting,
) -> ClassWeights {
    let mut counts = vec![0_usize; classes.len()];
    for label in train_labels {
        if let Some(count) = counts.get_mut(label) {
            *count += 1;
        }
    }
    let mut present: Vec<usize> = counts.iter().copied().filter(|&n| n > 0).collect();
    present.sort_unstable();
    let k = present.len();
    // What a weight is one over, but for a factor.
    let size = |n: usize| match weighting {
        Weighting::EffectiveNumber => (1.0 - EFFECTIVE_BETA.powf(n as f64)) / (1.0 - EFFECTIVE_BETA),
        Weighting::Balanced | Weighting::MedianFrequency | Weighting::Inverse => n as f64,
    };
    let factor = match weighting {
        _ if k == 0 => 0.0,
        Weighting::Balanced => present.iter().sum::<usize>() as f64 / k as f64,
        Weighting::MedianFrequency => (present[(k - 1) / 2] + present[k / 2]) as f64 / 2.0,
        Weighting::Inverse | Weighting::EffectiveNumber => {
            k as f64 / present.iter().map(|&n| 1.0 / size(n)).sum::<f64>()
        }
    };
    let weights = counts.iter().map(|&n| if n == 0 { 0.0 } else { (factor / size(n)) as f32 }).collect();
    let absent = classes.iter().zip(&counts).filter(|(_, n)| **n == 0);
    let notes = absent.map(|(class, _)| format!("class {class} has no training sample: its weight is 0")).collect();
    ClassWeights { weights, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HAM: [usize; 7] = [327, 514, 1099, 115, 1113, 6705, 142];

    fn weights(counts: &[usize], weighting: Weighting) -> ClassWeights {
        let names: Vec<String> = (0..counts.len()).map(|c| c.to_string()).collect();
        class_weights(counts.iter().enumerate().flat_map(|(c, &n)| std::iter::repeat_n(c, n)), &names, weighting)
    }

    #[test]
    fn inverse_and_effective_weights_have_mean_one() {
        for weighting in [Weighting::Inverse, Weighting::EffectiveNumber] {
            let found = weights(&HAM, weighting).weights;
            assert!((found.iter().sum::<f32>() / 7.0 - 1.0).abs() < 1e-6, "{found:?}");
            // df has 115, nv 6705.
            let ratio = found[3] / found[5];
            let want = match weighting {
                Weighting::Inverse => 6705.0 / 115.0,
                _ => (1.0 - 0.999_f32.powi(6705)) / (1.0 - 0.999_f32.powi(115)),
            };
            assert!((ratio / want - 1.0).abs() < 1e-3, "{ratio} {want}");
        }
        assert_eq!(weights(&[4, 0, 4], Weighting::EffectiveNumber).weights, [1.0, 0.0, 1.0]);
    }

    #[test]
    fn published_values_for_ham10000() {
        let balanced = [4.375, 2.784, 1.302, 12.441, 1.286, 0.2134, 10.076];
        let median = [1.5719, 1.0, 0.4677, 4.4696, 0.4618, 0.0767, 3.6197];
        for (weighting, expected) in [(Weighting::Balanced, balanced), (Weighting::MedianFrequency, median)] {
            for (got, want) in weights(&HAM, weighting).weights.iter().zip(expected) {
                assert!((got - want).abs() < 6e-4, "{weighting:?}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn an_absent_class_weighs_nothing_and_is_noted() {
        let got = weights(&[10, 0, 30], Weighting::Balanced);
        assert_eq!(got.weights, [2.0, 0.0, 40.0 / 2.0 / 30.0]);
        assert_eq!(got.notes, ["class 1 has no training sample: its weight is 0"]);
        assert_eq!(weights(&[0, 0], Weighting::MedianFrequency).weights, [0.0, 0.0]);
    }
}
