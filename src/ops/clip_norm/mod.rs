//! Clipping by the norm of all gradients together (Pascanu et al., "On the difficulty of training recurrent neural
//! networks", 2013, algorithm 1), as PyTorch's `clip_grad_norm_`: with `norm = sqrt(sum of all squares)` each gradient is
//! multiplied by `min(1, most / (norm + 1e-6))`.
//!
//! [`add_squares`], once a gradient, adds its sum of squares to a total; [`factor`], once a step, takes the total back to
//! zero and says what gradients are multiplied by. The optimizers multiply by it anyway where the loss is scaled (see
//! [`loss_scale`](super::loss_scale)), so clipping takes no pass of its own over the gradients but the one that reads them.
//! With a scaled loss the norm is that of the gradients without the scale, and the factor undoes it as well; it is 0 if the
//! update must be skipped.
//!
//! A workgroup sums a contiguous run, a second launch the runs, and gradients follow each other in the order of the tape:
//! so the norm is the same every time. No gradient.

mod cases;
mod reference;

pub use cases::{cases, random};

use super::loss_scale::unscaled;
use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, uniform_block};
use crate::ops::{LANE_SUM, f32_shape, moved};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("clip_norm.wgsl", LANE_SUM);

/// Elements summed by one workgroup.
const RUN: usize = 16_384;

uniform_block! {
    /// Mirrors `Params` of `clip_norm.wgsl`.
    struct Params { count: u32, run: u32, squared: u32, most: f32 }
}

/// Appends `total += sum of the squares of gradient`: a variable `[1]` and a tensor of any shape, in f32.
///
/// # Errors
/// [`Kind::Shape`] for other types.
pub fn add_squares(tape: &mut Tape, total: Tensor, gradient: Tensor) -> Result<()> {
    tape.push(AddSquares, &[total, gradient]).map(drop)
}

/// Appends the decision of a step, after all sums: takes the `total` (`[1]`) back to zero and returns what gradients are
/// multiplied by, `[1]`, so that their norm is at most `most`. `unscale`, `[1]`, is one over the scale of the loss.
///
/// # Errors
/// [`Kind::Shape`] for other types, [`Kind::Usage`] for a norm that is not positive.
pub fn factor(tape: &mut Tape, total: Tensor, unscale: Option<Tensor>, most: f64) -> Result<Tensor> {
    if !(most > 0.0 && most.is_finite()) {
        return Err(Error::new(Kind::Usage, format!("gradients cannot be clipped to a norm of {most}")));
    }
    let inputs: Vec<Tensor> = [total].into_iter().chain(unscale).collect();
    tape.push1(Factor { most: most as f32 }, &inputs)
}

/// The kernel of an entry point, with what the file needs to be whole. The loss's scale is bound behind the total, if there
/// is one, and the factor behind that.
fn kernel(entry: &'static str, scaled: bool) -> Kernel {
    let kernel = unscaled(Kernel::new(&SOURCE, entry), scaled.then_some(2));
    kernel.with_u32("FACTOR", if scaled { 3 } else { 2 })
}

#[derive(Debug)]
struct AddSquares;

impl Op for AddSquares {
    fn name(&self) -> &'static str {
        "clip_norm.add_squares"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[1])?;
        match inputs[0] == TensorType::f32([1]) {
            true => Ok(vec![]),
            false => Err(Error::new(Kind::Shape, format!("squares add up in [1], not in {}", inputs[0]))),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[1])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[1].shape.len();
        let runs = count.div_ceil(RUN);
        let launch = |entry, count: usize, run: usize, squared: bool, groups: usize| {
            let params = Params { count: count as u32, run: run as u32, squared: squared.into(), most: 0.0 };
            Dispatch::new(kernel(entry, false), params.block(), grid(groups as u64))
        };
        let read = |dispatch: Dispatch| dispatch.input(1).work(2 * count as u64, moved(cx));
        let total = |dispatch: Dispatch| dispatch.bind(Operand::Input(0), Access::ReadWrite);
        if runs <= 1 {
            return Ok(Lowered::one(total(read(launch("add", count, RUN, true, 1)))));
        }
        Ok(Lowered {
            scratch: vec![TensorType::f32([runs])],
            dispatches: vec![
                read(launch("parts", count, RUN, true, runs)).bind(Operand::Scratch(0), Access::ReadWrite),
                total(launch("add", runs, runs, false, 1).bind(Operand::Scratch(0), Access::Read)),
            ],
        })
    }
}

#[derive(Debug)]
struct Factor {
    most: f32,
}

impl Op for Factor {
    fn name(&self) -> &'static str {
        "clip_norm.factor"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs.iter().all(|ty| *ty == TensorType::f32([1])) {
            true => Ok(vec![TensorType::f32([1])]),
            false => Err(Error::new(Kind::Shape, format!("clipping takes a total and a factor, not {inputs:?}"))),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let params = Params { count: 0, run: 0, squared: 0, most: self.most };
        let kernel = kernel("factor", cx.inputs.len() == 2);
        let dispatch = Dispatch::new(kernel, params.block(), [1; 3]).bind(Operand::Input(0), Access::ReadWrite);
        let dispatch = (1..cx.inputs.len()).fold(dispatch, Dispatch::input);
        Ok(Lowered::one(dispatch.output(0)))
    }
}
