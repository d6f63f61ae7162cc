//! CPU twin.

use super::Gelu;
use crate::ops::{Array, Real, Twin};

pub(super) struct GeluTwin {
    pub kind: Gelu,
}

/// Where a float holds nothing but 0 or 1 for the distribution, as far as its sum below can tell.
const FAR: f64 = 8.5;

impl GeluTwin {
    /// Phi and its derivative.
    fn phi<T: Real>(&self, x: T) -> (T, T) {
        let (one, two, half) = (T::one(), T::of(2.0), T::of(0.5));
        match self.kind {
            Gelu::Exact => {
                let density = (-half * x * x).exp() / T::of(std::f64::consts::TAU).sqrt();
                if x.abs() > T::of(FAR) {
                    return (if x > T::zero() { one } else { T::zero() }, density);
                }
                // G. Marsaglia, "Evaluating the normal distribution", 2004: all terms have one sign.
                let (mut term, mut sum, mut n) = (x, x, one);
                while term.abs() > T::of(1e-18) * sum.abs() {
                    n += two;
                    term = term * x * x / n;
                    sum += term;
                }
                (half + density * sum, density)
            }
            Gelu::Tanh => {
                let root = T::of((2.0 / std::f64::consts::PI).sqrt());
                let cube = T::of(0.044715);
                let argument = root * (x + cube * x * x * x);
                let phi = one / (one + (-two * argument).exp());
                let minus = one / (one + (two * argument).exp());
                (phi, two * root * (one + T::of(3.0) * cube * x * x) * phi * minus)
            }
        }
    }
}

impl Twin for GeluTwin {
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>> {
        vec![inputs[0].map(|x| x * self.phi(x).0)]
    }

    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>> {
        vec![Some(inputs[0].zip(&d_outputs[0], |x, d| {
            let (phi, density) = self.phi(x);
            d * (phi + x * density)
        }))]
    }
}
