//! CPU twin: three nested loops for each matrix.

use super::Matmul;
use crate::ops::{Array, Real, Twin};
use crate::tensor::Shape;

pub(super) struct MatmulTwin {
    pub spec: Matmul,
}

/// The shape of a tensor as `[outer, inner, lines, length]`.
fn four(shape: &Shape, interleaved: bool) -> [usize; 4] {
    let d = shape.dims();
    let (lines, length) = (d[d.len() - 2], d[d.len() - 1]);
    match interleaved {
        true => [d[0], d[2], d[1], d[3]],
        false => [d[..d.len() - 2].iter().product(), 1, lines, length],
    }
}

/// The offset of `[batch, line, column]`, the batch counted as outer and inner together.
fn at(shape: &Shape, interleaved: bool, [batch, line, column]: [usize; 3]) -> usize {
    let [_, inner, lines, length] = four(shape, interleaved);
    if interleaved {
        ((batch / inner * lines + line) * inner + batch % inner) * length + column
    } else {
        (batch * lines + line) * length + column
    }
}

impl MatmulTwin {
    fn result<T: Real>(&self, a: &Array<T>, b: &Array<T>) -> Shape {
        let ([_, _, al, ac], [_, _, bl, bc]) =
            (four(&a.shape, self.spec.interleaved[0]), four(&b.shape, self.spec.interleaved[1]));
        let m = if self.spec.transposed[0] { ac } else { al };
        let n = if self.spec.transposed[1] { bl } else { bc };
        let batch = match self.spec.interleaved[0] {
            true => vec![a.shape.dims()[0], a.shape.dims()[2]],
            false => a.shape.dims()[..a.shape.rank() - 2].to_vec(),
        };
        match self.spec.interleaved[2] {
            true => vec![batch[0], m, batch[1], n].into(),
            false => [batch, vec![m, n]].concat().into(),
        }
    }

    /// Calls `visit(a offset, b offset, y offset)` for every product.
    fn each<T: Real>(&self, a: &Array<T>, b: &Array<T>, mut visit: impl FnMut(usize, usize, usize)) {
        let y = self.result(a, b);
        let Matmul { transposed: [ta, tb], interleaved: [ia, ib, iy], .. } = self.spec;
        let [outer, inner, rows, columns] = four(&y, iy);
        let [_, _, lines, length] = four(&a.shape, ia);
        for batch in 0..outer * inner {
            for m in 0..rows {
                for n in 0..columns {
                    for k in 0..if ta { lines } else { length } {
                        let from = at(&a.shape, ia, if ta { [batch, k, m] } else { [batch, m, k] });
                        let by = at(&b.shape, ib, if tb { [batch, n, k] } else { [batch, k, n] });
                        visit(from, by, at(&y, iy, [batch, m, n]));
                    }
                }
            }
        }
    }
}

impl Twin for MatmulTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (a, b) = (&inputs[0], &inputs[1]);
        let mut y = Array::zeros(self.result(a, b));
        self.each(a, b, |from, by, to| y.data[to] += a.data[from] * b.data[by]);
        let scale = T::of(f64::from(self.spec.scale));
        vec![y.map(|v| scale * v)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (a, b) = (&inputs[0], &inputs[1]);
        let scale = T::of(f64::from(self.spec.scale));
        let d_y = d_outputs[0].map(|v| scale * v);
        let (mut d_a, mut d_b) = (a.map(|_| T::zero()), b.map(|_| T::zero()));
        self.each(a, b, |from, by, to| {
            d_a.data[from] += d_y.data[to] * b.data[by];
            d_b.data[by] += d_y.data[to] * a.data[from];
        });
        vec![Some(d_a), Some(d_b)]
    }
}
