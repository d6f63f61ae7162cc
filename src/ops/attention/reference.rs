//! CPU twin, token by token.

use crate::ops::{Array, Real, Twin};

pub(super) struct AttentionTwin;

impl AttentionTwin {
    /// For each query its offset, and of each key its offset and its share, before the shares are summed up.
    fn each<T: Real>(q: &Array<T>, k: &Array<T>, mut f: impl FnMut(usize, &[(usize, T)])) {
        let ([nn, tt, heads, d], [_, ss, _, _]) = (q.nhwc(), k.nhwc());
        for n in 0..nn {
            for head in 0..heads {
                for t in 0..tt {
                    let from = q.at(n, t, head, 0);
                    let scores: Vec<(usize, T)> = (0..ss)
                        .map(|s| {
                            let to = k.at(n, s, head, 0);
                            let dot: T = (0..d).map(|i| q.data[from + i] * k.data[to + i]).sum();
                            (to, dot / T::of(d as f64).sqrt())
                        })
                        .collect();
                    let top = scores.iter().fold(scores[0].1, |m, s| m.max(s.1));
                    let total: T = scores.iter().map(|s| (s.1 - top).exp()).sum();
                    let shares: Vec<(usize, T)> =
                        scores.into_iter().map(|(to, s)| (to, (s - top).exp() / total)).collect();
                    f(from, &shares);
                }
            }
        }
    }
}

impl Twin for AttentionTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        let d = q.shape.last();
        let mut y = q.map(|_| T::zero());
        Self::each(q, k, |from, shares| {
            for &(to, share) in shares {
                (0..d).for_each(|i| y.data[from + i] += share * v.data[to + i]);
            }
        });
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let (q, k, v, d_y) = (&inputs[0], &inputs[1], &inputs[2], &d_outputs[0]);
        let d = q.shape.last();
        let root = T::of(d as f64).sqrt();
        let [mut d_q, mut d_k, mut d_v] = [q, k, v].map(|x| x.map(|_| T::zero()));
        Self::each(q, k, |from, shares| {
            // The gradient of each share, then through the softmax.
            let d_share = |to: usize| (0..d).map(|i| d_y.data[from + i] * v.data[to + i]).sum::<T>();
            let mean: T = shares.iter().map(|&(to, share)| share * d_share(to)).sum();
            for &(to, share) in shares {
                let d_score = share * (d_share(to) - mean) / root;
                for i in 0..d {
                    d_v.data[to + i] += share * d_y.data[from + i];
                    d_q.data[from + i] += d_score * k.data[to + i];
                    d_k.data[to + i] += d_score * q.data[from + i];
                }
            }
        });
        vec![Some(d_q), Some(d_k), Some(d_v)]
    }
}
