//! What a step learns of the rows of a batch: their weights in the loss, and the shares of their classes.

use std::collections::HashMap;
use std::sync::Arc;

use super::mixing::Partners;
use super::scores::weight_of;
use crate::data::Batch;

/// What the loss takes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Its mask, which comes with the picture.
    Mask,
    /// Its class.
    Label,
    /// The shares of its classes, which sum to one.
    Shares,
    /// How much it has of each class, and its weight.
    Sigmoids,
}

/// What is known of classes.
#[derive(Debug)]
pub(super) struct Targets {
    pub takes: Takes,
    pub class_weights: Vec<f32>,
    /// Further classes of some samples.
    pub more: Arc<HashMap<u32, Vec<u32>>>,
}

/// What a step learns of a batch.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// The weight of each row; of mixed rows the sum of both labels' weights, each times its share.
    pub weights: Vec<f32>,
    /// How much each row has of each class, `[rows, K]`; of labels and masks nothing.
    pub classes: Vec<f32>,
}

impl Targets {
    /// The classes of a row of a batch.
    fn classes_of(&self, batch: &Batch, row: usize) -> Vec<usize> {
        let more = self.more.get(&batch.samples[row]).filter(|_| self.takes == Takes::Sigmoids);
        [batch.labels[row]].iter().chain(more.into_iter().flatten()).map(|&class| class as usize).collect()
    }

    /// What is learned of a batch, whose rows may be mixed with partners.
    pub fn learned(&self, batch: &Batch, partners: Option<&Partners>) -> Learned {
        let rows = batch.labels.len();
        if self.takes == Takes::Mask {
            return Learned { weights: vec![1.0; rows], classes: vec![] };
        }
        let mut learned = Learned::default();
        for row in 0..rows {
            let own = partners.map_or(1.0, |partners| partners.blends[row].label);
            let other = partners.map(|partners| (1.0 - own, &partners.batch));
            let parts = [(own, batch)].into_iter().chain(other).map(|(share, batch)| {
                let classes = self.classes_of(batch, row);
                (share, weight_of(&classes, &self.class_weights), classes)
            });
            let parts: Vec<_> = parts.collect();
            let weight: f32 = parts.iter().map(|(share, weight, _)| share * weight).sum();
            learned.weights.push(weight);
            if self.takes != Takes::Label {
                let first = learned.classes.len();
                learned.classes.resize(first + self.class_weights.len(), 0.0);
                for (share, of_label, classes) in parts {
                    // Where rows are weighed and not classes, a class counts as much as its label weighs in the row.
                    let weighed = self.takes == Takes::Sigmoids && weight > 0.0;
                    let share = if weighed { share * of_label / weight } else { share };
                    classes.into_iter().for_each(|class| learned.classes[first + class] += share);
                }
            }
        }
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::super::mixing::Blend;
    use super::*;

    fn batch(labels: [u32; 2], samples: [u32; 2]) -> Batch {
        let (labels, samples) = (labels.to_vec(), samples.to_vec());
        Batch { pixels: vec![], labels, keys: samples.clone(), samples, valid: 2 }
    }

    #[test]
    fn mixed_rows_weigh_and_are_what_their_labels_weigh_and_are() {
        let blend = |partner, label| Blend { partner, share: 0.0, patch: [0; 4], label };
        let partners = Partners { batch: batch([1, 0], [7, 8]), blends: vec![blend(7, 0.75), blend(8, 1.0)] };
        let more = Arc::new(HashMap::from([(7, vec![2])]));
        let of = |takes| Targets { takes, class_weights: vec![1.0, 2.0, 4.0], more: Arc::clone(&more) };
        let batch = batch([0, 2], [5, 6]);
        let plain = of(Takes::Label).learned(&batch, None);
        assert_eq!((plain.weights, plain.classes.len()), (vec![1.0, 4.0], 0));
        let shares = of(Takes::Shares).learned(&batch, Some(&partners));
        assert_eq!(shares.weights, [0.75 + 0.25 * 2.0, 4.0]);
        assert_eq!(shares.classes, [0.75, 0.25, 0.0, 0.0, 0.0, 1.0]);
        // The partner has two classes, so it weighs their mean.
        let sigmoids = of(Takes::Sigmoids).learned(&batch, Some(&partners));
        assert_eq!(sigmoids.weights, [0.75 + 0.25 * 3.0, 4.0]);
        assert_eq!(sigmoids.classes, [0.5, 0.5, 0.5, 0.0, 0.0, 1.0]);
        assert_eq!(of(Takes::Sigmoids).learned(&batch, None).classes, [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    }
}
