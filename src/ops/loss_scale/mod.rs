//! Dynamic loss scaling (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2), with the constants of
//! PyTorch's `GradScaler`. f16 has no numbers below 6e-8, and most gradients of activations are smaller; so the backward
//! pass starts from a large number instead of one, and the optimizer divides by it.
//!
//! [`check`] looks for numbers that are not finite in a gradient and raises a flag. [`decide`], once a step, takes the
//! flag down and moves the scale: after a step with an overflow it is halved, after [`GROWTH_INTERVAL`] steps without one
//! doubled. What it returns is 1 / scale as it was in this step, or 0 if the update must be skipped; `sgd` and `adam`
//! take that as their last input and change nothing if it is 0, not even their step counter.
//!
//! All of it happens on the device. Flags are combined with an atomic or, whose order does not matter. Scales are powers
//! of two, so scaling costs no digits. The running statistics of batch-norm follow the forward pass and so move in a
//! skipped step too, as in PyTorch.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Library, Operand, Source, Uniform, grid_for, uniform_block};
use crate::ops::{WORKGROUP, f32_shape, moved};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("loss_scale.wgsl");

/// The scale of the first step.
pub const INITIAL_SCALE: f32 = 65_536.0;
/// The scale grows after this many steps without an overflow.
pub const GROWTH_INTERVAL: u32 = 2000;
/// What it is then multiplied by.
pub const GROWTH: f32 = 2.0;
/// What it is multiplied by after an overflow.
pub const BACKOFF: f32 = 0.5;

/// Elements of a lane; `EACH` in the shader.
const EACH: u32 = 16;

uniform_block! {
    /// Mirrors `Params` of `loss_scale.wgsl`.
    struct Params { count: u32, interval: u32, growth: f32, backoff: f32 }
}

fn params(count: usize) -> Params {
    Params { count: count as u32, interval: GROWTH_INTERVAL, growth: GROWTH, backoff: BACKOFF }
}

/// Adds the gradient's factor to an optimizer's kernel: from `binding` if the loss is scaled, else one.
pub(super) fn unscaled(kernel: Kernel, binding: Option<u32>) -> Kernel {
    static SCALED: Library = Library { file: "unscale.wgsl", text: include_str!("../../../shaders/lib/unscale.wgsl") };
    static PLAIN: Library =
        Library { file: "unscale_none.wgsl", text: include_str!("../../../shaders/lib/unscale_none.wgsl") };
    match binding {
        Some(binding) => kernel.with_u32("UNSCALE", binding).with_library(&SCALED),
        None => kernel.with_library(&PLAIN),
    }
}

/// Appends a search of `gradient` (f32, any shape) for infinities and NaN: `flag` (a u32 variable `[1]`) becomes 1 if
/// there is one, and else stays as it is.
///
/// # Errors
/// [`Kind::Shape`] for other types.
pub fn check(tape: &mut Tape, flag: Tensor, gradient: Tensor) -> Result<()> {
    tape.push(Check, &[flag, gradient]).map(drop)
}

/// Appends the decision of a step, after all checks: takes down the `flag` (u32 `[1]`), moves the `scale` `[1]` and the
/// counts in `steps` `[2]` (steps since the scale changed, steps skipped in all). Returns `[1]`: 1 / scale of this step,
/// or 0 if a flag was up.
///
/// # Errors
/// [`Kind::Shape`] for other types.
pub fn decide(tape: &mut Tape, flag: Tensor, scale: Tensor, steps: Tensor) -> Result<Tensor> {
    tape.push1(Decide, &[flag, scale, steps])
}

#[derive(Debug)]
struct Check;

impl Op for Check {
    fn name(&self) -> &'static str {
        "loss_scale.check"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[1])?;
        if inputs[0] != TensorType::u32([1]) {
            return Err(Error::new(Kind::Shape, format!("the overflow flag is {}", inputs[0])));
        }
        Ok(vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[1])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[1].shape.len();
        let grid = grid_for(count, WORKGROUP * EACH);
        let dispatch = Dispatch::new(Kernel::new(&SOURCE, "check"), params(count).block(), grid)
            .bind(Operand::Input(0), Access::ReadWrite)
            .input(1);
        Ok(Lowered::one(dispatch.work(count as u64, moved(cx))))
    }
}

#[derive(Debug)]
struct Decide;

impl Op for Decide {
    fn name(&self) -> &'static str {
        "loss_scale.decide"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs != [TensorType::u32([1]), TensorType::f32([1]), TensorType::f32([2])] {
            return Err(Error::new(
                Kind::Shape,
                format!("loss scaling takes a flag, a scale and counts, not {inputs:?}"),
            ));
        }
        Ok(vec![TensorType::f32([1])])
    }

    fn updates(&self) -> &'static [usize] {
        &[0, 1, 2]
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Lowered> {
        let dispatch = Dispatch::new(Kernel::new(&SOURCE, "decide"), params(0).block(), [1; 3]);
        let dispatch = (0..3).fold(dispatch, |d, i| d.bind(Operand::Input(i), Access::ReadWrite));
        Ok(Lowered::one(dispatch.output(0)))
    }
}
