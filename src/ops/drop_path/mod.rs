//! Stochastic depth ("drop path"): of `x: [N, ..]`, the branch of a residual block, each sample is kept with
//! probability `1 - rate` and divided by it, or dropped as a whole. As torchvision's `StochasticDepth(mode="row")`.
//!
//! Whether sample `n` is kept in step `t` is a pure function, as in [`dropout`](mod@crate::ops::dropout): the first
//! word of Threefry-2x32 for the key of the layer and the counter `(n, t)`, as a float in [0, 1), is at least `rate`.
//!
//! Backward: `d_x` is the op itself on `d_y`.
//!
//! Kernel (`drop_path.wgsl`): `forward`, four elements a load where a sample is a multiple of four. A dropped sample is
//! written as zeros, not left out: the block's other kernels have a fixed shape.
//!
//! Paper: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", ECCV 2016.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::ops::{FOURS, RANDOM, fours, lanes, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("drop_path.wgsl", FOURS, RANDOM);

uniform_block! {
    /// Mirrors `Params` of `drop_path.wgsl`.
    struct Params { count: u32, length: u32, rate: f32, scale: f32, key_x: u32, key_y: u32 }
}

/// `x` with a share `rate` of its samples dropped; `key` and `clock` as those of
/// [`dropout`](crate::ops::dropout::dropout).
///
/// # Errors [`Kind::Shape`] unless `0 <= rate < 1`, `x` is a float tensor with samples and `clock` an unsigned one of
/// one element.
pub fn drop_path(tape: &mut Tape, x: Tensor, rate: f32, key: [u32; 2], clock: Tensor) -> Result<Tensor> {
    tape.push1(DropPath { rate, key }, &[x, clock])
}

/// What kept samples are multiplied by.
fn scale(rate: f32) -> f32 {
    1.0 / (1.0 - rate)
}

#[derive(Debug)]
struct DropPath {
    rate: f32,
    key: [u32; 2],
}

impl Op for DropPath {
    fn name(&self) -> &'static str {
        "drop_path"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if !(0.0..1.0).contains(&self.rate) {
            let message = format!("a drop-path rate of {} is not at least 0 and less than 1", self.rate);
            return Err(Error::new(Kind::Shape, message));
        }
        if inputs[1] != TensorType::u32([1]) || inputs[0].shape.rank() == 0 {
            let message = format!("drop-path takes samples and a clock, not {} and {}", inputs[0], inputs[1]);
            return Err(Error::new(Kind::Shape, message));
        }
        same_shape(&inputs[..1])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(drop_path(tape, d_y, self.rate, self.key, node.inputs[1])?), None])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let shape = &cx.inputs[0].shape;
        let length = shape.len() / shape.dims()[0];
        let four = length.is_multiple_of(4);
        let vector = if four { 4 } else { 1 };
        let count = shape.len() / vector;
        // A grid for groups of four takes any other groups as well.
        let (_, grid) = fours(count * 4);
        let [key_x, key_y] = self.key;
        let params = Params {
            count: count as u32,
            length: (length / vector) as u32,
            rate: self.rate,
            scale: scale(self.rate),
            key_x,
            key_y,
        };
        let kernel = lanes(Kernel::new(&SOURCE, "forward"), four, [cx.inputs[0].is_half(); 2]);
        let dispatch = Dispatch::new(kernel, params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(shape.len() as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_rates_and_clocks_that_make_no_sense() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([4, 3]));
        let clock = tape.input("clock", TensorType::u32([1]));
        for rate in [-0.1, 1.0, f32::NAN] {
            assert_eq!(drop_path(&mut tape, x, rate, [1, 2], clock).unwrap_err().kind(), Kind::Shape, "{rate}");
        }
        assert_eq!(drop_path(&mut tape, x, 0.5, [1, 2], x).unwrap_err().kind(), Kind::Shape);
        assert!(drop_path(&mut tape, x, 0.0, [1, 2], clock).is_ok());
    }
}
