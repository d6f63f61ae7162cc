//! Add: `y = a + b`, two tensors of the same shape. Backward: `d_a = d_b = d_y`.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Finish, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Dispatch, Kernel, Source, Uniform, uniform_block};
use crate::onnx;
use crate::ops::{fours, load_inputs, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("add.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `add.wgsl`.
    struct Params { fours: u32 }
}

/// `a + b`, element by element.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if the shapes differ.
pub fn add(tape: &mut Tape, a: Tensor, b: Tensor) -> Result<Tensor> {
    tape.push1(Add, &[a, b])
}

#[derive(Debug)]
struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        same_shape(inputs)
    }

    fn finish(&self) -> Option<Finish> {
        Some(Finish::Add)
    }

    fn backward(&self, _: &mut Tape, _: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![d_outputs[0]; 2])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let (both, _) = graph.alike(inputs)?;
        Ok(graph.node_like("Add", &[&both[0], &both[1]], &[], &both[0]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours };
        let dispatch =
            Dispatch::new(Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half()), params.block(), grid);
        let dispatch = load_inputs(dispatch, &["a", "b"], true, cx);
        Ok(Lowered::one(dispatch.output(0).work(count as u64, moved(cx))))
    }
}
