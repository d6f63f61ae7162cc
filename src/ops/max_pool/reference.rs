//! CPU twin.

use crate::ops::window::Window;
use crate::ops::window::reference::{each_output, pixels};
use crate::ops::{Array, Real, Twin};

pub(super) struct MaxPoolTwin {
    pub window: Window,
}

impl MaxPoolTwin {
    /// Calls `f` with the offset of every output and that of the first largest element under its window.
    fn each<T: Real>(&self, x: &Array<T>, y: &Array<T>, mut f: impl FnMut(usize, usize)) {
        let [_, hh, ww, _] = x.nhwc();
        each_output(y.nhwc(), |n, p, q, c| {
            let mut best: Option<usize> = None;
            pixels(&self.window, [hh, ww], [p, q], |_, _, h, w| {
                let at = x.at(n, h, w, c);
                if best.is_none_or(|b| x.data[at] > x.data[b]) {
                    best = Some(at);
                }
            });
            f(y.at(n, p, q, c), best.expect("every window meets the image"));
        });
    }

    fn empty<T: Real>(&self, x: &Array<T>) -> Array<T> {
        let [n, h, w, c] = x.nhwc();
        let [p, q] = self.window.outputs(h, w).expect("a window that fits");
        Array::zeros([n, p, q, c])
    }
}

impl Twin for MaxPoolTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let empty = self.empty(x);
        let mut y = empty.clone();
        self.each(x, &empty, |o, at| y.data[o] = x.data[at]);
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_x = inputs[0].map(|_| T::zero());
        self.each(&inputs[0], &d_outputs[0], |o, at| d_x.data[at] += d_outputs[0].data[o]);
        vec![Some(d_x)]
    }
}
