//! Pictures mixed with partners: `own` and `other` `[N, H, W, C]`, shares f32 `[N]` and boxes u32 `[N, 4]` (top, left,
//! bottom, right in pixels, the last two just outside). `y = other` inside a picture's box, and
//! `y = share own + (1 - share) other` outside. With an empty box it is mixup, with a share of 1 CutMix.
//!
//! There is no gradient: pictures are data. Kernel (`mix.wgsl`): `forward`, one invocation an element.
//!
//! Numerics: in f32. A share of 1 or 0 gives either picture exactly, as long as both are finite.
//!
//! Papers: H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018; S. Yun,
//! D. Han, S. Oh, S. Chun, J. Choe, Y. Yoo, "CutMix: regularization strategy to train strong classifiers with localizable
//! features", ICCV 2019.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid_for, uniform_block};
use crate::ops::{WORKGROUP, image_batch, moved, same_shape};
use crate::tensor::TensorType;

static SOURCE: Source = crate::wgsl!("mix.wgsl");

uniform_block! {
    /// Mirrors `Params` of `mix.wgsl`.
    struct Params { count: u32, width: u32, channels: u32, picture: u32 }
}

/// The pictures `own`, `[N, H, W, C]`, mixed with `other`, each by its entries of `shares: [N]` and `boxes: [N, 4]`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together.
pub fn mix(tape: &mut Tape, own: Tensor, other: Tensor, shares: Tensor, boxes: Tensor) -> Result<Tensor> {
    tape.push1(Mix, &[own, other, shares, boxes])
}

#[derive(Debug)]
struct Mix;

impl Op for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, ..] = image_batch(&inputs[0])?;
        if inputs[2] != TensorType::f32([n]) || inputs[3] != TensorType::u32([n, 4]) {
            let message = format!("{} and {} are not a share and a box for each of {n} pictures", inputs[2], inputs[3]);
            return Err(Error::new(Kind::Shape, message));
        }
        same_shape(&inputs[..2])
    }

    fn backward(&self, _: &mut Tape, node: &NodeView, _: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        match node.wanted.contains(&true) {
            true => Err(Error::new(Kind::Shape, "mixed pictures have no gradient")),
            false => Ok(vec![None; 4]),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, height, width, channels] = image_batch(&cx.inputs[0])?;
        let picture = height * width * channels;
        let count = n * picture;
        let params =
            Params { count: count as u32, width: width as u32, channels: channels as u32, picture: picture as u32 };
        let kernel = Kernel::new(&SOURCE, "forward").with_half(cx.inputs[0].is_half());
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP));
        let dispatch = dispatch.input(0).input(1).input(2).input(3).output(0);
        Ok(Lowered::one(dispatch.work(4 * count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_go_together() {
        let mut tape = Tape::new();
        let own = tape.input("own", TensorType::f32([2, 4, 5, 3]));
        let small = tape.input("small", TensorType::f32([2, 4, 4, 3]));
        let shares = tape.input("shares", TensorType::f32([2]));
        let boxes = tape.input("boxes", TensorType::u32([2, 4]));
        for [other, shares, boxes] in [[small, shares, boxes], [own, boxes, boxes], [own, shares, shares]] {
            assert_eq!(mix(&mut tape, own, other, shares, boxes).unwrap_err().kind(), Kind::Shape);
        }
        assert!(mix(&mut tape, own, own, shares, boxes).is_ok());
    }
}
