//! Cast between f32 and f16, any shape: how f32 parameters enter a convolution in mixed precision, and how its logits
//! reach the loss.
//!
//! Backward: `d_x` is `d_y` in the type of x. A gradient that has that type already is passed on as it is: convolutions
//! give an f32 gradient of an f16 weight.
//!
//! Kernels (`cast.wgsl`): `to_half` and `to_full`, one invocation an element.
//!
//! Numerics: to f32 exact. To f16 rounded with a relative error of at most 2^-11 (2^-10 on a driver that truncates),
//! below 6.1e-5 an absolute one of 2^-25 (2^-24, and some drivers flush such numbers to zero); above 65504 infinite.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::ops::{WORKGROUP, float_shape, moved};
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("cast.wgsl");

uniform_block! {
    /// Mirrors `Params` of `cast.wgsl`.
    struct Params { count: u32 }
}

/// `x` as f32 or f16; x itself if it is of that type already.
///
/// # Errors
/// [`Kind::Shape`] if x is not a float tensor or `to` not a float type.
pub fn cast(tape: &mut Tape, x: Tensor, to: DType) -> Result<Tensor> {
    if tape.ty(x).dtype == to { Ok(x) } else { tape.push1(Cast { to }, &[x]) }
}

#[derive(Debug)]
struct Cast {
    to: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if self.to == DType::U32 {
            return Err(Error::new(Kind::Shape, "a cast is to f32 or f16"));
        }
        Ok(vec![TensorType { shape: float_shape(&inputs[0])?.clone(), dtype: self.to }])
    }

    fn takes_wide_gradients(&self) -> bool {
        true
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let dtype = tape.ty(node.inputs[0]).dtype;
        Ok(vec![Some(cast(tape, d_y, dtype)?)])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let params = Params { count: count as u32 };
        let entry = if cx.outputs[0].is_half() { "to_half" } else { "to_full" };
        let kernel = Kernel::new(&SOURCE, entry).with_half(true);
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP));
        Ok(Lowered::one(dispatch.input(0).output(0).work(0, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cast_to_the_same_type_is_nothing_and_integers_are_refused() {
        let mut tape = Tape::new();
        let x = tape.input("x", TensorType::f32([3]));
        let labels = tape.input("labels", TensorType::u32([3]));
        assert_eq!(cast(&mut tape, x, DType::F32).unwrap(), x);
        let half = cast(&mut tape, x, DType::F16).unwrap();
        assert_eq!(*tape.ty(half), TensorType::f16([3]));
        assert_eq!(cast(&mut tape, labels, DType::F16).unwrap_err().kind(), Kind::Shape);
        assert_eq!(cast(&mut tape, x, DType::U32).unwrap_err().kind(), Kind::Shape);
    }
}
