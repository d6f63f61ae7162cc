//! Curves of a score that tells one class from the others, one point for each threshold that changes something.

use super::classification::both;
use crate::error::Result;

/// How many positive and negative samples have at least each score, from the highest score down: one entry for each score that
/// occurs.
fn counts(positive: &[bool], scores: &[f64]) -> Vec<[usize; 2]> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut hits, mut alarms) = (0, 0);
    // Equality of numbers, not of bits: 0.0 and -0.0 are one threshold.
    let groups = order.chunk_by(|&a, &b| scores[a] == scores[b]);
    let group = |group: &[usize]| {
        let gained = group.iter().filter(|&&i| positive[i]).count();
        (hits, alarms) = (hits + gained, alarms + group.len() - gained);
        [hits, alarms]
    };
    groups.map(group).collect()
}

/// The ROC curve of `scores` `[N]` for telling `positive` `[N]` samples from the others: the share of false alarms and the
/// sensitivity at each threshold, from (0, 0) to (1, 1); of points on a straight line the first and the last
/// (`sklearn.metrics.roc_curve`). `None` if there is no positive or no negative sample.
///
/// # Errors
/// As [`roc_auc`](super::roc_auc).
pub fn roc_curve(positive: &[bool], scores: &[f64]) -> Result<Option<Vec<[f64; 2]>>> {
    let Some((positives, negatives)) = both(positive, scores)? else { return Ok(None) };
    let mut curve: Vec<[usize; 2]> = vec![[0, 0]];
    for point in counts(positive, scores) {
        if let [.., before, last] = curve[..] {
            let step = |from: [usize; 2], to: [usize; 2]| [to[0] - from[0], to[1] - from[1]];
            let (one, other) = (step(before, last), step(last, point));
            if one[0] * other[1] == one[1] * other[0] {
                curve.pop();
            }
        }
        curve.push(point);
    }
    let share = |[hits, alarms]: [usize; 2]| [alarms as f64 / negatives as f64, hits as f64 / positives as f64];
    Ok(Some(curve.into_iter().map(share).collect()))
}

/// Recall and precision at each threshold, from the highest down (`sklearn.metrics.precision_recall_curve`, without the point
/// that it adds at a recall of 0). `None` if there is no positive or no negative sample.
///
/// # Errors
/// As [`roc_auc`](super::roc_auc).
pub fn precision_recall_curve(positive: &[bool], scores: &[f64]) -> Result<Option<Vec<[f64; 2]>>> {
    let Some((positives, _)) = both(positive, scores)? else { return Ok(None) };
    let point = |[hits, alarms]: [usize; 2]| [hits as f64 / positives as f64, hits as f64 / (hits + alarms) as f64];
    Ok(Some(counts(positive, scores).into_iter().map(point).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{average_precision, roc_auc};
    use crate::rng::Stream;

    #[test]
    fn points_are_those_of_scikit_learn() {
        // roc_curve and precision_recall_curve of scikit-learn say so of these.
        let (positive, scores) = ([false, false, true, true, true], [0.1, 0.4, 0.35, 0.8, 0.9]);
        let roc = roc_curve(&positive, &scores).unwrap().unwrap();
        assert_eq!(roc, [[0.0, 0.0], [0.0, 2.0 / 3.0], [0.5, 2.0 / 3.0], [0.5, 1.0], [1.0, 1.0]]);
        let pr = precision_recall_curve(&positive, &scores).unwrap().unwrap();
        assert_eq!(pr, [[1.0 / 3.0, 1.0], [2.0 / 3.0, 1.0], [2.0 / 3.0, 2.0 / 3.0], [1.0, 0.75], [1.0, 0.6]]);
        assert_eq!(roc_curve(&[true, true], &[0.1, 0.2]).unwrap(), None);
        assert!(precision_recall_curve(&[true, false], &[0.1]).is_err());
    }

    #[test]
    fn areas_below_them_are_the_scores() {
        let stream = Stream::new(3, 1);
        // Many equal scores, as of few pictures that look alike.
        let scores: Vec<f64> = (0..400).map(|i| f64::from((stream.uniform(i) * 20.0).floor())).collect();
        let positive: Vec<bool> =
            (0..400).map(|i| f64::from(stream.uniform(400 + i)) * 30.0 < scores[i as usize]).collect();
        let roc = roc_curve(&positive, &scores).unwrap().unwrap();
        let area: f64 = roc.windows(2).map(|w| (w[1][0] - w[0][0]) * (w[0][1] + w[1][1]) / 2.0).sum();
        assert!((area - roc_auc(&positive, &scores).unwrap().unwrap()).abs() < 1e-12, "{area}");
        let pr = precision_recall_curve(&positive, &scores).unwrap().unwrap();
        let recall_before = [0.0].into_iter().chain(pr.iter().map(|p| p[0]));
        let sum: f64 = pr.iter().zip(recall_before).map(|(p, before)| (p[0] - before) * p[1]).sum();
        assert!((sum - average_precision(&positive, &scores).unwrap().unwrap()).abs() < 1e-12, "{sum}");
    }
}
