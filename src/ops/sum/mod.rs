//! Sum and mean of all elements: `y = factor * sum(x)` with factor 1 or 1/count; the result has shape `[1]`.
//!
//! Backward: `d_x = factor * d_y`, broadcast. The order of summation is fixed: a workgroup sums a contiguous run, a
//! second launch sums the runs; so the result is the same every time.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, grid_for, uniform_block};
use crate::ops::{LANE_SUM, WORKGROUP, f32_shape};
use crate::tensor::{Shape, TensorType};

static SOURCE: Source = crate::wgsl!("sum.wgsl", LANE_SUM);

/// Elements summed by one workgroup; large enough that one more workgroup sums the rest of any tensor quickly.
const RUN: usize = 16_384;

uniform_block! {
    /// Mirrors `Params` of `sum.wgsl`.
    struct Params { count: u32, run: u32, factor: f32 }
}

/// The sum of all elements, shape `[1]`.
///
/// # Errors
/// None for float tensors.
pub fn sum(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(Sum { factor: 1.0 }, &[x])
}

/// The mean of all elements, shape `[1]`.
///
/// # Errors
/// [`Kind::Shape`] for a tensor without elements.
pub fn mean(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    let count = tape.shape(x).len();
    if count == 0 {
        return Err(Error::new(Kind::Shape, "the mean of no elements"));
    }
    tape.push1(Sum { factor: (1.0 / count as f64) as f32 }, &[x])
}

#[derive(Debug)]
struct Sum {
    factor: f32,
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[0])?;
        Ok(vec![TensorType::f32([1])])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let shape = tape.shape(node.inputs[0]).clone();
        Ok(vec![Some(tape.push1(Broadcast { shape, factor: self.factor }, &[d_y])?)])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let runs = count.div_ceil(RUN);
        let launch = |count: usize, run: usize, factor: f32, groups: usize| {
            let params = Params { count: count as u32, run: run as u32, factor };
            Dispatch::new(Kernel::new(&SOURCE, "forward"), params.block(), grid(groups as u64))
                .work(count as u64, 4 * count as u64)
        };
        if runs == 1 {
            return Ok(Lowered::one(launch(count, RUN, self.factor, 1).input(0).output(0)));
        }
        Ok(Lowered {
            scratch: vec![TensorType::f32([runs])],
            dispatches: vec![
                launch(count, RUN, 1.0, runs).input(0).bind(Operand::Scratch(0), Access::ReadWrite),
                launch(runs, runs, self.factor, 1).bind(Operand::Scratch(0), Access::Read).output(0),
            ],
        })
    }
}

/// A scalar times a factor, spread over a shape: the gradient of [`Sum`].
#[derive(Debug)]
struct Broadcast {
    shape: Shape,
    factor: f32,
}

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "sum.grad"
    }

    fn infer(&self, _: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32(self.shape.clone())])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.outputs[0].shape.len();
        let params = Params { count: count as u32, run: 0, factor: self.factor };
        let dispatch = Dispatch::new(Kernel::new(&SOURCE, "broadcast"), params.block(), grid_for(count, WORKGROUP));
        Ok(Lowered::one(dispatch.input(0).output(0).work(count as u64, 4 * count as u64)))
    }
}
