//! A running total in a variable: `total += gradient`, and `total = 0`. In place; no gradient. For steps whose batch is
//! computed in parts.
//!
//! Kernels (`accumulate.wgsl`): four elements at a time; exact sums of two f32.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, uniform_block};
use crate::ops::{f32_shape, fours};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("accumulate.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `accumulate.wgsl`.
    struct Params { fours: u32 }
}

/// Appends `total += gradient`: an f32 variable and an f32 tensor of its shape.
///
/// # Errors
/// [`Kind::Shape`] for other types.
pub fn accumulate(tape: &mut Tape, total: Tensor, gradient: Tensor) -> Result<()> {
    tape.push(Accumulate, &[total, gradient]).map(drop)
}

/// Appends `total = 0`, for an f32 variable.
///
/// # Errors
/// [`Kind::Shape`] for another element type.
pub fn clear(tape: &mut Tape, total: Tensor) -> Result<()> {
    tape.push(Clear, &[total]).map(drop)
}

fn launch(cx: &Lower<'_>, entry: &'static str) -> Dispatch {
    let (fours, grid) = fours(cx.inputs[0].shape.len());
    Dispatch::new(Kernel::new(&SOURCE, entry), Params { fours }.block(), grid)
        .bind(Operand::Input(0), Access::ReadWrite)
}

#[derive(Debug)]
struct Accumulate;

impl Op for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[0])?;
        match inputs[0] == inputs[1] {
            true => Ok(vec![]),
            false => Err(Error::new(Kind::Shape, format!("{} does not add to {}", inputs[1], inputs[0]))),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len() as u64;
        Ok(Lowered::one(launch(cx, "accumulate").input(1).work(count, 12 * count)))
    }
}

#[derive(Debug)]
struct Clear;

impl Op for Clear {
    fn name(&self) -> &'static str {
        "accumulate.clear"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[0]).map(|_| vec![])
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[0])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(Lowered::one(launch(cx, "clear").work(0, 4 * cx.inputs[0].shape.len() as u64)))
    }
}
