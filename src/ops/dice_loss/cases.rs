//! Shapes for tests, benchmarks and the self-test.

use super::reference::OverlapTwin;
use super::{Overlap, dice_loss, soft_jaccard_loss};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// Both losses, by image and by batch, with weights and without; one element, one run, many, more images than a
/// workgroup; soft targets; empty masks, and such that are found nearly perfectly.
pub fn cases() -> Vec<Case> {
    let list = [
        ("one element", vec![1], Fill::Normal, Fill::Labels(2)),
        ("small", vec![3, 7], Fill::Normal, Fill::Labels(2)),
        ("one run", vec![2, 64, 64, 1], Fill::Gaussian(0.0, 3.0), Fill::Labels(2)),
        ("many runs", vec![3, 113, 97, 1], Fill::Gaussian(0.0, 3.0), Fill::Labels(2)),
        ("many images, soft targets", vec![131, 5, 3, 1], Fill::Normal, Fill::Uniform(0.0, 1.0)),
        ("empty masks", vec![2, 9, 9, 1], Fill::Gaussian(-5.0, 2.0), Fill::Constant(0.0)),
        ("full masks, found", vec![2, 9, 9, 1], Fill::Uniform(2.0, 8.0), Fill::Constant(1.0)),
    ];
    let mut cases = vec![];
    for (name, shape, logits, targets) in list {
        for (jaccard, per_image, weighted, smoothing) in [
            (false, true, false, 1.0),
            (false, false, false, 0.0),
            (false, true, true, 0.5),
            (true, false, true, 1.0),
            (true, true, false, 1e-3),
        ] {
            let mut inputs = vec![
                CaseInput::new(shape.clone(), logits, Role::Differentiable),
                CaseInput::new(shape.clone(), targets, Role::Fixed),
            ];
            inputs.extend(weighted.then(|| CaseInput::new([shape[0]], Fill::Uniform(0.2, 2.0), Role::Fixed)));
            let spec = Overlap { smoothing, per_image };
            let name = format!(
                "{name} {}{}{} smoothing {smoothing}",
                if jaccard { "Jaccard" } else { "Dice" },
                if per_image { " by image" } else { " by batch" },
                if weighted { " weighted" } else { "" },
            );
            cases.push(Case::new("dice_loss", name, inputs, OverlapTwin { spec, jaccard }, move |tape, x| {
                let loss = if jaccard { soft_jaccard_loss } else { dice_loss };
                Ok(vec![loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
            }));
        }
    }
    // Some images count, and none.
    for (name, weights) in [("padding", Fill::Labels(2)), ("no weight at all", Fill::Constant(0.0))] {
        let spec = Overlap::default();
        let inputs = vec![
            CaseInput::new([9, 6, 5, 1], Fill::Normal, Role::Differentiable),
            CaseInput::new([9, 6, 5, 1], Fill::Labels(2), Role::Fixed),
            CaseInput::new([9], weights, Role::Fixed),
        ];
        cases.push(Case::new("dice_loss", name, inputs, OverlapTwin { spec, jaccard: false }, move |tape, x| {
            Ok(vec![dice_loss(tape, x[0], x[1], Some(x[2]), spec)?])
        }));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let targets = draw.of(&[Fill::Labels(2), Fill::Uniform(0.0, 1.0)]);
    let mut inputs = vec![CaseInput::normal(x), CaseInput::new(x, targets, Role::Fixed)];
    inputs.extend(draw.flag().then(|| CaseInput::new([x[0]], Fill::Uniform(0.2, 2.0), Role::Fixed)));
    let (spec, jaccard) = (Overlap { smoothing: draw.of(&[0.5, 1.0]), per_image: draw.flag() }, draw.flag());
    Some(Case::new("dice_loss", name(x, (spec, jaccard)), inputs, OverlapTwin { spec, jaccard }, move |tape, x| {
        let loss = if jaccard { soft_jaccard_loss } else { dice_loss };
        Ok(vec![loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
    }))
}
