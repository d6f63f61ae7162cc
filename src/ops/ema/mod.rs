//! An exponential moving average, in place: `average = decay * average + (1 - decay) * value`. No gradient.
//!
//! Kernel (`ema.wgsl`): four elements at a time.
//!
//! Numerics: computed as `average + (1 - decay) * (value - average)`, so that an average which equals its value stays
//! exactly that.
//!
//! Averages of weights along training: B. Polyak and A. Juditsky, "Acceleration of stochastic approximation by
//! averaging", 1992; in exponential form Tan and Le, 2019, section 5.2.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, uniform_block};
use crate::ops::{f32_shape, fours};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("ema.wgsl", crate::ops::FOURS);

uniform_block! {
    /// Mirrors `Params` of `ema.wgsl`.
    struct Params { fours: u32, rest: f32 }
}

/// Appends a move of `average`, an f32 variable, towards `value`, an f32 tensor of its shape.
///
/// # Errors
/// [`Kind::Shape`] for other types, or a decay that is not in `[0, 1)`.
pub fn ema(tape: &mut Tape, average: Tensor, value: Tensor, decay: f64) -> Result<()> {
    if !(0.0..1.0).contains(&decay) {
        return Err(Error::new(Kind::Shape, format!("an average cannot decay by {decay}")));
    }
    tape.push(Ema { rest: (1.0 - decay) as f32 }, &[average, value]).map(drop)
}

#[derive(Debug)]
struct Ema {
    /// One minus the decay, from the host's f64.
    rest: f32,
}

impl Op for Ema {
    fn name(&self) -> &'static str {
        "ema"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        f32_shape(&inputs[0])?;
        match inputs[0] == inputs[1] {
            true => Ok(vec![]),
            false => Err(Error::new(Kind::Shape, format!("{} is not averaged in {}", inputs[1], inputs[0]))),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn side_by_side(&self) -> Option<&'static [usize]> {
        Some(&[0, 1])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[0].shape.len();
        let (fours, grid) = fours(count);
        let params = Params { fours, rest: self.rest };
        let dispatch = Dispatch::new(Kernel::new(&SOURCE, "update"), params.block(), grid)
            .bind(Operand::Input(0), Access::ReadWrite)
            .input(1);
        Ok(Lowered::one(dispatch.work(3 * count as u64, 12 * count as u64)))
    }
}
