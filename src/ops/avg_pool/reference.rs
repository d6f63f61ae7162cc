//! CPU twin.

use crate::ops::window::Window;
use crate::ops::window::reference::{each_output, pixels};
use crate::ops::{Array, Real, Twin};

pub(super) struct AvgPoolTwin {
    pub window: Window,
    pub count_include_pad: bool,
}

impl AvgPoolTwin {
    /// Calls `f(output offset, input offset, 1 / divisor)` for every pixel under every window.
    fn each<T: Real>(&self, x: &Array<T>, y: &Array<T>, mut f: impl FnMut(usize, usize, T)) {
        let [_, hh, ww, _] = x.nhwc();
        let window = &self.window;
        each_output(y.nhwc(), |n, p, q, c| {
            let mut under = vec![];
            pixels(window, [hh, ww], [p, q], |_, _, h, w| under.push(x.at(n, h, w, c)));
            let divisor = if self.count_include_pad { window.size[0] * window.size[1] } else { under.len() };
            for at in under {
                f(y.at(n, p, q, c), at, T::one() / T::of(divisor as f64));
            }
        });
    }
}

impl Twin for AvgPoolTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        let x = &inputs[0];
        let [n, h, w, c] = x.nhwc();
        let [p, q] = self.window.outputs(h, w).expect("a window that fits");
        let empty = Array::zeros([n, p, q, c]);
        let mut y = empty.clone();
        self.each(x, &empty, |o, at, factor| y.data[o] += x.data[at] * factor);
        vec![y]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        let mut d_x = inputs[0].map(|_| T::zero());
        self.each(&inputs[0], &d_outputs[0], |o, at, factor| d_x.data[at] += d_outputs[0].data[o] * factor);
        vec![Some(d_x)]
    }
}
