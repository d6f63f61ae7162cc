//! Shapes for tests, benchmarks and the self-test.

use super::reference::MatmulTwin;
use super::{Matmul, matmul};
use crate::ops::{Case, CaseInput, Draw, random::name};

/// All transpositions and interleavings; extents of fours and not, below and above a tile; one matrix and batches of
/// one and two axes.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![];
    let mut push = |batch: &[usize], [m, k, n]: [usize; 3], spec: Matmul| {
        let stored = |[rows, columns]: [usize; 2], transposed: bool, interleaved: bool| {
            let [r, c] = if transposed { [columns, rows] } else { [rows, columns] };
            match (interleaved, batch) {
                (true, &[outer, inner]) => vec![outer, r, inner, c],
                _ => [batch, &[r, c]].concat(),
            }
        };
        let a = stored([m, k], spec.transposed[0], spec.interleaved[0]);
        let b = stored([k, n], spec.transposed[1], spec.interleaved[1]);
        let flags = |flags: &[bool]| flags.iter().map(|&f| if f { 'x' } else { '-' }).collect::<String>();
        let name = format!(
            "{batch:?} of {m}x{k}x{n} transposed {} interleaved {}",
            flags(&spec.transposed),
            flags(&spec.interleaved)
        );
        let inputs = vec![CaseInput::normal(a), CaseInput::normal(b)];
        cases.push(Case::new("matmul", name, inputs, MatmulTwin { spec }, move |tape, x| {
            Ok(vec![matmul(tape, x[0], x[1], spec)?])
        }));
    };
    let plain = Matmul::default();
    for extents in [[1, 1, 1], [5, 7, 3], [8, 12, 4], [33, 6, 35], [36, 40, 68], [4, 130, 5]] {
        for transposed in [[false, false], [true, false], [false, true], [true, true]] {
            push(&[2], extents, Matmul { transposed, ..plain });
        }
    }
    push(&[], [9, 8, 16], Matmul { scale: 0.125, ..plain });
    push(&[2, 3], [9, 8, 16], Matmul { scale: -3.0, ..plain });
    for code in 0..8 {
        let interleaved = [code & 1 != 0, code & 2 != 0, code & 4 != 0];
        push(&[2, 3], [9, 8, 12], Matmul { interleaved, transposed: [false, true], scale: 0.5 });
        push(&[2, 3], [6, 5, 7], Matmul { interleaved, transposed: [true, false], ..plain });
    }
    cases
}

/// A random case: see [`Random`](crate::ops::Random).
pub fn random(draw: &mut Draw, x: &[usize]) -> Option<Case> {
    let (batch, &[lines, length]) = x.split_at_checked(x.len().checked_sub(2)?)? else { return None };
    let mut interleaved = [false; 3];
    let (mut batch, mut stored) = (batch.to_vec(), [lines, length]);
    if batch.len() == 2 {
        interleaved = interleaved.map(|_| draw.flag());
        if interleaved[0] {
            (batch[1], stored[0]) = (lines, batch[1]);
        }
    }
    let transposed = [draw.flag(), draw.flag()];
    let depth = if transposed[0] { stored[0] } else { stored[1] };
    let n = draw.channels();
    let [rows, columns] = if transposed[1] { [n, depth] } else { [depth, n] };
    let b = match interleaved[1] {
        true => vec![batch[0], rows, batch[1], columns],
        false => [&batch[..], &[rows, columns]].concat(),
    };
    let spec = Matmul { transposed, interleaved, scale: draw.of(&[1.0, -0.5]) };
    let inputs = vec![CaseInput::normal(x), CaseInput::weight(b.clone(), depth)];
    Some(Case::new("matmul", name(x, (b, spec)), inputs, MatmulTwin { spec }, move |tape, x| {
        Ok(vec![matmul(tape, x[0], x[1], spec)?])
    }))
}
