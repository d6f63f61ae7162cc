//! What a tensor holds, in five numbers: its elements, how many of them are not finite, and of the others the least, the
//! greatest and the mean magnitude. They are added to a record, so that it may be of several tensors or steps; one of
//! zeros is empty. For the search for where a computation went wrong: no gradient.
//!
//! Numbers are looked at by bits, as in [`loss_scale`](super::loss_scale). The order of summation is fixed.

mod cases;
mod reference;

pub use cases::{cases, random};

use serde::Serialize;

use crate::autograd::{Lower, Lowered, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid, uniform_block};
use crate::ops::moved;
use crate::tensor::{DType, TensorType};

static SOURCE: Source = crate::wgsl!("summary.wgsl");

/// Numbers of a record; `FIVE` in the shader.
pub const NUMBERS: usize = 5;

/// Elements that a workgroup looks at.
const RUN: usize = 16_384;

uniform_block! {
    /// Mirrors `Params` of `summary.wgsl`.
    struct Params { count: u32, run: u32 }
}

/// A record as it is read back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// Elements.
    pub elements: f32,
    /// Those that are infinite or NaN.
    pub not_finite: f32,
    /// The least of the others.
    pub least: f32,
    /// The greatest of the others.
    pub greatest: f32,
    /// The mean magnitude of the others.
    pub mean_magnitude: f32,
}

impl Summary {
    /// Of the numbers of a record.
    pub fn of([elements, not_finite, least, greatest, mean_magnitude]: [f32; NUMBERS]) -> Self {
        Self { elements, not_finite, least, greatest, mean_magnitude }
    }

    /// Of numbers on the host.
    pub fn of_values(values: impl Iterator<Item = f32> + Clone) -> Self {
        let finite = values.clone().filter(|v| v.is_finite());
        let (all, left) = (values.count(), finite.clone().count());
        Self {
            elements: all as f32,
            not_finite: (all - left) as f32,
            least: finite.clone().reduce(f32::min).unwrap_or_default(),
            greatest: finite.clone().reduce(f32::max).unwrap_or_default(),
            mean_magnitude: (finite.map(|v| f64::from(v.abs())).sum::<f64>() / left.max(1) as f64) as f32,
        }
    }

    /// Whether a number is infinite or NaN.
    pub fn is_bad(&self) -> bool {
        self.not_finite > 0.0
    }
}

/// Appends a look at `x`, f32 or f16 of any shape; what it finds is added to `record`, a variable `[NUMBERS]` in f32.
///
/// # Errors
/// [`Kind::Shape`] for other types.
pub fn summarise(tape: &mut Tape, record: Tensor, x: Tensor) -> Result<()> {
    tape.push(Summarise, &[record, x]).map(drop)
}

#[derive(Debug)]
struct Summarise;

impl Op for Summarise {
    fn name(&self) -> &'static str {
        "summary"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs[0] == TensorType::f32([NUMBERS]) && inputs[1].dtype != DType::U32 {
            true => Ok(vec![]),
            false => Err(Error::new(Kind::Shape, format!("{} is not summarised in {}", inputs[1], inputs[0]))),
        }
    }

    fn updates(&self) -> &'static [usize] {
        &[0]
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let count = cx.inputs[1].shape.len();
        let runs = count.div_ceil(RUN);
        let launch = |entry, half: bool, count: usize, groups: usize| {
            let params = Params { count: count as u32, run: RUN as u32 };
            Dispatch::new(Kernel::new(&SOURCE, entry).with_half(half), params.block(), grid(groups as u64))
        };
        let parts = launch("parts", cx.inputs[1].is_half(), count, runs).input(1);
        let parts = parts.bind(Operand::Scratch(0), Access::ReadWrite).work(4 * count as u64, moved(cx));
        let merge = launch("merge", false, runs, 1).bind(Operand::Scratch(0), Access::Read);
        let merge = merge.bind(Operand::Input(0), Access::ReadWrite);
        Ok(Lowered { scratch: vec![TensorType::f32([runs, NUMBERS])], dispatches: vec![parts, merge] })
    }
}
