//! CPU twins: the slow, obvious version of every op, generic over the float type.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::tensor::Shape;

/// The float type of a CPU twin: f32, or f64 for finite differences.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Sum
    + Send
    + Sync
    + 'static
{
    /// Nearest value to an f64.
    fn of(value: f64) -> Self;
    /// The value as f64.
    fn f64(self) -> f64;
    /// e to the power.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Natural logarithm of one plus the value, accurate near zero.
    fn ln_1p(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Magnitude.
    fn abs(self) -> Self;
    /// The larger of two.
    fn max(self, other: Self) -> Self {
        if self < other { other } else { self }
    }
    /// Zero.
    fn zero() -> Self {
        Self::of(0.0)
    }
    /// One.
    fn one() -> Self {
        Self::of(1.0)
    }
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            fn of(value: f64) -> Self {
                value as $t
            }
            fn f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn ln(self) -> Self {
                $t::ln(self)
            }
            fn ln_1p(self) -> Self {
                $t::ln_1p(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn abs(self) -> Self {
                $t::abs(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// A dense array of the twin's float type. Unsigned tensors (labels, counters) are held as whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Extents, outermost first.
    pub shape: Shape,
    /// Elements, row-major.
    pub data: Vec<T>,
}

impl<T: Real> Array<T> {
    /// An array of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = vec![T::zero(); shape.len()];
        Self { shape, data }
    }

    /// An array over `data`.
    ///
    /// # Panics
    /// If `data` does not have the shape's length.
    pub fn new(shape: impl Into<Shape>, data: Vec<T>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.len(), data.len());
        Self { shape, data }
    }

    /// An array of the same shape with every element mapped.
    #[must_use]
    pub fn map(&self, f: impl Fn(T) -> T) -> Self {
        Self { shape: self.shape.clone(), data: self.data.iter().map(|&v| f(v)).collect() }
    }

    /// An array of the same shape from two of the same shape.
    #[must_use]
    pub fn zip(&self, other: &Self, f: impl Fn(T, T) -> T) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Self { shape: self.shape.clone(), data }
    }

    /// The extents of an image batch.
    ///
    /// # Panics
    /// If the rank is not 4.
    pub fn nhwc(&self) -> [usize; 4] {
        self.shape.nhwc().expect("an image batch")
    }

    /// The offset of an element of an image batch.
    pub fn at(&self, n: usize, h: usize, w: usize, c: usize) -> usize {
        let [_, hh, ww, cc] = self.nhwc();
        ((n * hh + h) * ww + w) * cc + c
    }

    /// The same values in another float type.
    pub fn cast<U: Real>(&self) -> Array<U> {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|v| U::of(v.f64())).collect() }
    }
}

/// A CPU twin: forward, and backward written independently of the kernels.
pub trait Twin: Send + Sync {
    /// The outputs; after them the new values of the inputs that are updated in place, in input order.
    fn forward<T: Real>(&self, inputs: &[Array<T>]) -> Vec<Array<T>>;

    /// The gradient of each input (`None` where there is none) for gradients of the outputs.
    fn backward<T: Real>(&self, inputs: &[Array<T>], d_outputs: &[Array<T>]) -> Vec<Option<Array<T>>>;
}

/// A twin whose float type is chosen at the call: what a case holds.
pub trait AnyTwin: Send + Sync {
    /// [`Twin::forward`] in f32.
    fn forward_f32(&self, inputs: &[Array<f32>]) -> Vec<Array<f32>>;
    /// [`Twin::forward`] in f64.
    fn forward_f64(&self, inputs: &[Array<f64>]) -> Vec<Array<f64>>;
    /// [`Twin::backward`] in f32.
    fn backward_f32(&self, inputs: &[Array<f32>], d_outputs: &[Array<f32>]) -> Vec<Option<Array<f32>>>;
    /// [`Twin::backward`] in f64.
    fn backward_f64(&self, inputs: &[Array<f64>], d_outputs: &[Array<f64>]) -> Vec<Option<Array<f64>>>;
}

impl<W: Twin> AnyTwin for W {
    fn forward_f32(&self, inputs: &[Array<f32>]) -> Vec<Array<f32>> {
        self.forward(inputs)
    }
    fn forward_f64(&self, inputs: &[Array<f64>]) -> Vec<Array<f64>> {
        self.forward(inputs)
    }
    fn backward_f32(&self, inputs: &[Array<f32>], d_outputs: &[Array<f32>]) -> Vec<Option<Array<f32>>> {
        self.backward(inputs, d_outputs)
    }
    fn backward_f64(&self, inputs: &[Array<f64>], d_outputs: &[Array<f64>]) -> Vec<Option<Array<f64>>> {
        self.backward(inputs, d_outputs)
    }
}
