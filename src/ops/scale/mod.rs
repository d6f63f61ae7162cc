//! Scale: `y = factor * x`, any shape. Backward: `d_x = factor * d_y`. Also a constant fill, which has no gradient.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, moved, same_shape};
use crate::tensor::{HostTensor, TensorType};

static SCALE: Source = crate::wgsl!("scale.wgsl", crate::ops::FOURS);
static FILL: Source = crate::wgsl!("fill.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `scale.wgsl`.
    struct Params { fours: u32, factor: f32 }
}

uniform_block! {
    /// Mirrors `Params` of `fill.wgsl`.
    struct FillParams { fours: u32, value: f32 }
}

/// `factor * x`.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) for another element type, no elements or too many.
pub fn scale(tape: &mut Tape, x: Tensor, factor: f32) -> Result<Tensor> {
    tape.push1(Scale { factor }, &[x])
}

/// A tensor of type `ty` with every element `value`.
///
/// # Errors
/// As [`scale`].
pub fn fill(tape: &mut Tape, ty: TensorType, value: f32) -> Result<Tensor> {
    tape.push1(Fill { ty, value }, &[])
}

#[derive(Debug)]
struct Scale {
    factor: f32,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn backward(&self, tape: &mut Tape, _: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        d_outputs.iter().map(|d| d.map(|d| scale(tape, d, self.factor)).transpose()).collect()
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let factor = graph.constant("factor", &HostTensor::full([1], self.factor));
        Ok(graph.node_like("Mul", &[&inputs[0], &factor], &[], &inputs[0]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours, factor: self.factor };
        let dispatch =
            Dispatch::new(Kernel::new(&SCALE, "forward").with_half(cx.inputs[0].is_half()), params.block(), grid);
        Ok(Lowered::one(dispatch.input(0).output(0).work(count as u64, moved(cx))))
    }
}

#[derive(Debug)]
struct Fill {
    ty: TensorType,
    value: f32,
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn infer(&self, _: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(std::slice::from_ref(&self.ty))
    }

    fn onnx(&self, graph: &mut onnx::Graph, _: &[onnx::Value]) -> Result<onnx::Value> {
        graph.filled(&self.ty.shape, self.value)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = FillParams { fours, value: self.value };
        let dispatch = Dispatch::new(Kernel::new(&FILL, "forward").with_half(self.ty.is_half()), params.block(), grid);
        Ok(Lowered::one(dispatch.output(0).work(0, moved(cx))))
    }
}
