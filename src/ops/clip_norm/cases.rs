//! Shapes for tests, benchmarks and the self-test.

use super::reference::{AddSquaresTwin, FactorTwin};
use super::{RUN, add_squares, factor};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// One element, around a workgroup, around a run, several runs, onto a total that is there; and every decision: below the
/// norm, above it, far above, of a scaled loss, of a step that is skipped, of sums that overflowed.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for n in [1, 63, 65, 1000, RUN, RUN + 1, 5 * RUN + 77] {
        let total = CaseInput::new([1], Fill::Constant(2.5), Role::Updated);
        let inputs = vec![total, CaseInput::new([n], Fill::Normal, Role::Fixed)];
        cases.push(Case::new("clip_norm", format!("squares of {n}"), inputs, AddSquaresTwin, |tape, x| {
            add_squares(tape, x[0], x[1])?;
            Ok(vec![])
        }));
    }
    let decisions = [
        (0.0, None, 1.0),
        (0.25, None, 1.0),
        (1.0, None, 1.0),
        (100.0, None, 1.0),
        (1e30, None, 0.5),
        (f32::INFINITY, None, 1.0),
        (4.0 * 65_536.0 * 65_536.0, Some(1.0 / 65_536.0), 0.5),
        (65_536.0, Some(1.0 / 65_536.0), 0.5),
        (9.0, Some(0.0), 1.0),
        (f32::INFINITY, Some(0.0), 1.0),
    ];
    for (squares, unscale, most) in decisions {
        let mut inputs = vec![CaseInput::new([1], Fill::Constant(squares), Role::Updated)];
        inputs.extend(unscale.map(|unscale| CaseInput::new([1], Fill::Constant(unscale), Role::Fixed)));
        let name = format!("factor: {squares} by {unscale:?} to {most}");
        cases.push(Case::new("clip_norm", name, inputs, FactorTwin { most }, move |tape, x| {
            Ok(vec![factor(tape, x[0], x.get(1).copied(), most)?])
        }));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let total = CaseInput::new([1], Fill::Uniform(0.1, 4.0), Role::Updated);
    if draw.flag() {
        let inputs = vec![total, CaseInput::new(x, Fill::Normal, Role::Fixed)];
        return Some(Case::new("clip_norm", name(x, "squares"), inputs, AddSquaresTwin, |tape, x| {
            add_squares(tape, x[0], x[1])?;
            Ok(vec![])
        }));
    }
    let (most, unscale) = (draw.of(&[0.5, 1.0, 5.0]), draw.of(&[None, Some(0.25), Some(0.0)]));
    let mut inputs = vec![total];
    inputs.extend(unscale.map(|unscale| CaseInput::new([1], Fill::Constant(unscale), Role::Fixed)));
    Some(Case::new("clip_norm", format!("factor {most} {unscale:?}"), inputs, FactorTwin { most }, move |tape, x| {
        Ok(vec![factor(tape, x[0], x.get(1).copied(), most)?])
    }))
}
