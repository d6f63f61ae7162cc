//! Shapes for tests, benchmarks and the self-test.

use super::reference::SigmoidFocalTwin;
use super::{SigmoidFocal, sigmoid_focal_loss};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, sizes around the workgroup and the run; exponents from none to large, with alpha and without; weights
/// of elements, of samples, of none; soft targets; large logits, and elements classified well.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &[usize], fills: [Fill; 2], weights: Option<(usize, Fill)>, spec: SigmoidFocal| {
        let mut inputs = vec![
            CaseInput::new(shape.to_vec(), fills[0], Role::Differentiable),
            CaseInput::new(shape.to_vec(), fills[1], Role::Fixed),
        ];
        inputs.extend(weights.map(|(axes, fill)| CaseInput::new(shape[..axes].to_vec(), fill, Role::Fixed)));
        let SigmoidFocal { gamma, alpha } = spec;
        let alpha = alpha.map_or(String::new(), |a| format!(" alpha {a}"));
        let name = format!("{name} {shape:?} gamma {gamma}{alpha}");
        Case::new("sigmoid_focal_loss", name, inputs, SigmoidFocalTwin { spec }, move |tape, x| {
            Ok(vec![sigmoid_focal_loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
        })
    };
    let hard = [Fill::Gaussian(0.0, 2.0), Fill::Labels(2)];
    let soft = [Fill::Normal, Fill::Uniform(0.0, 1.0)];
    let usual = SigmoidFocal::default();
    let bare = |gamma| SigmoidFocal { gamma, alpha: None };
    let some = Some((1, Fill::Labels(2)));
    vec![
        case("one element", &[1], hard, None, usual),
        case("small", &[3, 7], hard, None, usual),
        case("one more than a workgroup", &[65], hard, None, bare(2.0)),
        case("no focus", &[9, 5], hard, None, bare(0.0)),
        case("no focus, soft targets", &[9, 5], soft, None, SigmoidFocal { gamma: 0.0, ..usual }),
        case("square root", &[9, 5], hard, None, bare(0.5)),
        case("large exponent", &[9, 5], hard, None, SigmoidFocal { gamma: 5.0, ..usual }),
        case("soft targets", &[31, 17], soft, None, usual),
        case("one run", &[4096], hard, None, usual),
        case("many runs", &[2, 113, 97, 1], hard, None, usual),
        case("weighted elements", &[3, 50, 41], hard, Some((3, Fill::Uniform(0.0, 2.0))), usual),
        case("weighted samples", &[20, 7], hard, Some((1, Fill::Uniform(0.2, 2.0))), bare(1.0)),
        case("padded samples", &[20, 7], hard, some, usual),
        case("no weight", &[5, 7], hard, Some((1, Fill::Constant(0.0))), usual),
        case("logits to 50", &[33, 31], [Fill::Uniform(-50.0, 50.0), Fill::Labels(2)], None, usual),
        case("surely negative", &[301], [Fill::Uniform(-20.0, -4.0), Fill::Constant(0.0)], None, usual),
        case("surely positive", &[301], [Fill::Uniform(4.0, 20.0), Fill::Constant(1.0)], None, bare(1.0)),
    ]
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let spec = SigmoidFocal { gamma: draw.of(&[0.0, 1.0, 2.0]), alpha: draw.of(&[None, Some(0.25)]) };
    let targets = draw.of(&[Fill::Labels(2), Fill::Uniform(0.0, 1.0)]);
    let mut inputs = vec![CaseInput::normal(x), CaseInput::new(x, targets, Role::Fixed)];
    let weighted = &x[..draw.of(&[0, 1, x.len()])];
    inputs.extend((!weighted.is_empty()).then(|| CaseInput::new(weighted, Fill::Uniform(0.2, 2.0), Role::Fixed)));
    let name = name(x, (weighted, spec));
    Some(Case::new("sigmoid_focal_loss", name, inputs, SigmoidFocalTwin { spec }, move |tape, x| {
        Ok(vec![sigmoid_focal_loss(tape, x[0], x[1], x.get(2).copied(), spec)?])
    }))
}
