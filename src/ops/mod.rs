//! The operations. One folder an op: `mod.rs` (module doc, parameters, shape rule, forward, backward, kernels),
//! `reference.rs` (the CPU twin), `cases.rs` (the shapes that tests, benchmarks and the self-test use).

pub mod add;
pub mod augment;
pub mod bce_with_logits;
mod case;
mod check;
pub mod conv2d;
pub mod mul;
pub mod scale;
pub mod sum;
mod twin;

pub use case::{Case, CaseInput, Fill, Role};
pub use check::{CaseReport, Measured, check_case, finite_differences};
pub use twin::{AnyTwin, Array, Real, Twin};

use crate::autograd::{Gradients, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Library, Source};
use crate::tensor::TensorType;

/// Index helpers shared by nearly every kernel.
pub static INDEX: Library = Library { file: "index.wgsl", text: include_str!("../../shaders/lib/index.wgsl") };
/// Counter-based random numbers.
pub static RANDOM: Library = Library { file: "random.wgsl", text: include_str!("../../shaders/lib/random.wgsl") };

/// Invocations of a workgroup in kernels that map one invocation to one element.
pub const WORKGROUP: u32 = 64;

/// Declares a kernel source under `shaders/`, linked with the index helpers and any further libraries.
#[macro_export]
macro_rules! wgsl {
    ($file:literal $(, $library:expr)*) => {
        $crate::gpu::Source {
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file)),
            libraries: &[&$crate::ops::INDEX $(, &$library)*],
        }
    };
}

/// The case lists of all ops: what tests, benchmarks and the self-test run.
pub fn all_cases() -> Vec<Case> {
    [
        add::cases(),
        augment::cases(),
        bce_with_logits::cases(),
        conv2d::cases(),
        mul::cases(),
        scale::cases(),
        sum::cases(),
    ]
    .concat()
}

/// Appends the backward pass of `loss`, a tensor of one element, to the tape.
///
/// # Errors
/// Errors of the backward rules.
pub fn backward(tape: &mut Tape, loss: Tensor) -> Result<Gradients> {
    let one = scale::fill(tape, TensorType::f32(tape.shape(loss).clone()), 1.0)?;
    backward_from(tape, &[(loss, one)])
}

/// Appends the backward pass that starts from given gradients of some values.
///
/// # Errors
/// Errors of the backward rules.
pub fn backward_from(tape: &mut Tape, seeds: &[(Tensor, Tensor)]) -> Result<Gradients> {
    tape.backward(seeds, &|tape, a, b| add::add(tape, a, b))
}

/// Every distinct kernel source of the ops' cases; used to find sources no case reaches.
pub fn sources(dispatches: &[crate::gpu::Dispatch]) -> Vec<&'static Source> {
    let mut found: Vec<&'static Source> = dispatches.iter().map(|d| d.kernel.source).collect();
    found.sort_by_key(|s| s.file);
    found.dedup_by_key(|s| s.file);
    found
}

/// The shape rule of element-by-element ops: all inputs are alike, and so is the output.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if they differ.
pub(crate) fn same_shape(inputs: &[TensorType]) -> Result<Vec<TensorType>> {
    let first = &inputs[0];
    match inputs.iter().find(|ty| *ty != first) {
        None => Ok(vec![first.clone()]),
        Some(other) => Err(crate::Error::new(crate::Kind::Shape, format!("shapes {first} and {other} differ"))),
    }
}
