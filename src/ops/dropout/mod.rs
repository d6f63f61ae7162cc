//! Inverted dropout: `y = x / (1 - rate)` where an element is kept and 0 where it is not, any shape. Each element is
//! kept with probability `1 - rate`, so the mean of `y` is `x` and nothing needs to change when the op is left out.
//!
//! Whether element `i` is kept in step `t` is a pure function: the first word of Threefry-2x32 for the key of the
//! layer and the counter `(i, t)`, as a float in [0, 1), is at least `rate`. So nothing is stored, the batch's other
//! elements do not matter, and a resumed run drops the same elements.
//!
//! Backward: `d_x` is the op itself on `d_y`, with the mask recomputed.
//!
//! Kernel (`dropout.wgsl`): `forward`, one invocation an element.
//!
//! Paper: N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to prevent
//! neural networks from overfitting", JMLR 15, 2014; for the generator see [`rng`](crate::rng).

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::ops::{RANDOM, WORKGROUP, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("dropout.wgsl", RANDOM);

uniform_block! {
    /// Mirrors `Params` of `dropout.wgsl`.
    struct Params { count: u32, rate: f32, scale: f32, key_x: u32, key_y: u32 }
}

/// `x` with a share `rate` of its elements dropped. `key` tells layers apart (see
/// [`Stream::key`](crate::rng::Stream::key)); `clock` is the step counter, an unsigned tensor of one element, which
/// must not change between this node and the end of the backward pass.
///
/// # Errors
/// [`Kind::Shape`] unless `0 <= rate < 1`, `x` is a float tensor and `clock` an unsigned one of one element.
pub fn dropout(tape: &mut Tape, x: Tensor, rate: f32, key: [u32; 2], clock: Tensor) -> Result<Tensor> {
    tape.push1(Dropout { rate, key }, &[x, clock])
}

/// What kept elements are multiplied by.
fn scale(rate: f32) -> f32 {
    1.0 / (1.0 - rate)
}

#[derive(Debug)]
struct Dropout {
    rate: f32,
    key: [u32; 2],
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if !(0.0..1.0).contains(&self.rate) {
            let message = format!("a dropout rate of {} does not lie in 0 <= rate < 1", self.rate);
            return Err(Error::new(Kind::Shape, message));
        }
        if inputs[1] != TensorType::u32([1]) {
            let message = format!("the step counter is {}, not {}", inputs[1], TensorType::u32([1]));
            return Err(Error::new(Kind::Shape, message));
        }
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(dropout(tape, d_y, self.rate, self.key, node.inputs[1])?), None])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let [key_x, key_y] = self.key;
        let params = Params { count: count as u32, rate: self.rate, scale: scale(self.rate), key_x, key_y };
        let dispatch = Dispatch::new(
            Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()),
            params.block(),
            grid_for(count, WORKGROUP),
        );
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_rates_and_clocks_that_make_no_sense() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([4]));
        let clock = tape.input("clock", TensorType::u32([1]));
        for rate in [-0.1, 1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(dropout(&mut tape, x, rate, [1, 2], clock).unwrap_err().kind(), Kind::Shape, "{rate}");
        }
        assert_eq!(dropout(&mut tape, x, 0.5, [1, 2], x).unwrap_err().kind(), Kind::Shape);
        assert!(dropout(&mut tape, x, 0.0, [1, 2], clock).is_ok());
    }
}
