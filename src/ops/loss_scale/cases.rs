//! Shapes for tests, benchmarks and the self-test.

use super::reference::{CheckTwin, DecideTwin};
use super::{GROWTH_INTERVAL, check, decide};
use crate::ops::{Case, CaseInput, Draw, Fill, Role, random::name};

/// Gradients without an overflow and with one in the last element, alone and among many; flags that are up already; and
/// every decision.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    let gradients = [
        (1, 0.0, 0.0),
        (1, f32::NAN, 0.0),
        (63, f32::INFINITY, 0.0),
        (65, f32::MAX, 0.0),
        (65, f32::MIN_POSITIVE, 1.0),
        (1024, f32::NEG_INFINITY, 0.0),
        (70_000, f32::NAN, 1.0),
        (70_001, f32::NEG_INFINITY, 0.0),
    ];
    for (n, last, up) in gradients {
        let inputs = vec![CaseInput::flag(up), CaseInput::new([n], Fill::NormalBut(last), Role::Fixed)];
        cases.push(Case::new("loss_scale", format!("{n} ending in {last} from {up}"), inputs, CheckTwin, |tape, x| {
            check(tape, x[0], x[1])?;
            Ok(vec![])
        }));
    }
    let decisions =
        [(0.0, 65_536.0, 0), (1.0, 65_536.0, 17), (0.0, 0.25, GROWTH_INTERVAL - 2), (0.0, 8.0, GROWTH_INTERVAL - 1)];
    for (up, scale, since) in decisions {
        let inputs = vec![
            CaseInput::flag(up),
            CaseInput::new([1], Fill::Constant(scale), Role::Updated),
            CaseInput::new([2], Fill::Constant(since as f32), Role::Updated),
        ];
        let name = format!("decide: flag {up}, scale {scale}, after {since} steps");
        cases.push(Case::new("loss_scale", name, inputs, DecideTwin, |tape, x| {
            Ok(vec![decide(tape, x[0], x[1], x[2])?])
        }));
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let up = draw.of(&[0.0, 0.0, 1.0]);
    let flag = CaseInput::flag(up);
    if draw.flag() {
        let last = draw.of(&[0.0, 1.0, f32::NAN, f32::INFINITY]);
        let inputs = vec![flag, CaseInput::new(x, Fill::NormalBut(last), Role::Fixed)];
        return Some(Case::new("loss_scale", name(x, ("check", up, last)), inputs, CheckTwin, |tape, x| {
            check(tape, x[0], x[1])?;
            Ok(vec![])
        }));
    }
    let (scale, since) = (draw.of(&[0.25, 8.0, 65_536.0]), draw.of(&[0, 17, GROWTH_INTERVAL - 1]));
    let inputs = vec![
        flag,
        CaseInput::new([1], Fill::Constant(scale), Role::Updated),
        CaseInput::new([2], Fill::Constant(since as f32), Role::Updated),
    ];
    Some(Case::new("loss_scale", format!("decide {up} {scale} {since}"), inputs, DecideTwin, |tape, x| {
        Ok(vec![decide(tape, x[0], x[1], x[2])?])
    }))
}
