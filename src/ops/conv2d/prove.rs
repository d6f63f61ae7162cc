//! Proof of cooperative matrices on a device, before any result depends on them.

use super::{Backend, COOP_TILES, Conv2d, Padding, conv2d};
use crate::autograd::{Executable, Plan, Store, Tape};
use crate::error::{Kind, Result};
use crate::gpu::Gpu;
use crate::ops::backward_from;
use crate::rng::Stream;
use crate::tensor::{HostTensor, Shape, TensorType};

/// Largest difference from the plain kernels, relative to the largest number. Both round results to f16 (2^-10) or, the
/// weight's gradient, add in f32; matrix units may add with a few bits less.
const LIMIT: f32 = 2e-3;

/// Compares convolutions by cooperative matrices with the plain kernels, forward and backward, and from then on lets
/// kernels use them if they agree. Returns a note if the device offers matrices and they are refused. Does nothing
/// where it offers none.
///
/// # Errors
/// [`Kind::DeviceLost`] if the attempt cost the device; every other failure is a reason to refuse.
pub fn prove(gpu: &mut Gpu) -> Result<Option<String>> {
    if gpu.adapter().matrices.is_none() {
        return Ok(None);
    }
    gpu.trust_matrices(true);
    let refused = judge(difference(gpu))?;
    gpu.trust_matrices(refused.is_none());
    Ok(refused.map(|why| format!("the cooperative matrices of {} are not used: {why}", gpu.adapter().name)))
}

/// Why matrices of a difference from the plain kernels are refused, if they are.
fn judge(difference: Result<f32>) -> Result<Option<String>> {
    match difference {
        Ok(error) if error <= LIMIT => Ok(None),
        Ok(error) => Ok(Some(format!("they differ from plain convolutions by {error:.1e}"))),
        Err(e) if e.kind() == Kind::DeviceLost => Err(e),
        Err(e) => Ok(Some(e.what().to_owned())),
    }
}

/// The largest relative difference of any result of a few small convolutions. Infinite if a number is not finite.
fn difference(gpu: &Gpu) -> Result<f32> {
    let base = Conv2d { padding: Padding::all(1), ..Conv2d::default() };
    let strided = Conv2d { stride: [2, 2], padding: Padding::all(3), ..Conv2d::default() };
    let mut worst: f32 = 0.0;
    // More than a tile and whole vectors; then a stem, whose channels are no whole vectors.
    for (x, weight, conv) in [([2, 9, 7, 24], [3, 3, 24, 68], base), ([1, 17, 15, 3], [7, 7, 3, 10], strided)] {
        let plain = results(gpu, x.into(), weight.into(), Conv2d { backend: Backend::Plain, ..conv })?;
        // What is chosen for small results: it loads ahead, as all that are chosen without tuning do.
        let coop = results(gpu, x.into(), weight.into(), Conv2d { backend: Backend::Coop(COOP_TILES[1]), ..conv })?;
        for (want, got) in plain.iter().zip(&coop) {
            let size = want.data().iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            for (a, b) in want.data().iter().zip(got.data()) {
                let error = (a - b).abs() / size;
                worst = if error.is_finite() { worst.max(error) } else { f32::INFINITY };
            }
        }
    }
    Ok(worst)
}

/// y, `d_x` and `d_weight` of a convolution of random numbers.
fn results(gpu: &Gpu, x: Shape, weight: Shape, conv: Conv2d) -> Result<Vec<HostTensor>> {
    let mut tape = Tape::new();
    let x = tape.variable("x", TensorType::f16(x), true)?;
    let weight = tape.variable("weight", TensorType::f16(weight), true)?;
    let y = conv2d(&mut tape, x, weight, None, conv)?;
    let d_y = tape.variable("d_y", tape.ty(y).clone(), false)?;
    let gradients = backward_from(&mut tape, &[(y, d_y)])?;
    let outputs: Vec<_> = [Some(y), gradients.get(x), gradients.get(weight)].into_iter().flatten().collect();
    let mut store = Store::new();
    let executable = Executable::new(gpu, Plan::new(&tape, &outputs, gpu.caps())?, &mut store)?;
    for (name, t) in [("x", x), ("weight", weight), ("d_y", d_y)] {
        let stream = Stream::named(1, name);
        let shape = tape.shape(t).clone();
        let values = (0..shape.len() as u64).map(|i| stream.normal(i)).collect();
        store.write(gpu, name, &HostTensor::new(shape, values))?;
    }
    executable.run(gpu);
    (0..outputs.len()).map(|i| executable.read_output(gpu, i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn matrices_that_are_wrong_or_do_not_build_are_refused() {
        assert_eq!(judge(Ok(LIMIT)).unwrap(), None);
        for wrong in [0.1, f32::INFINITY, f32::NAN] {
            assert!(judge(Ok(wrong)).unwrap().is_some_and(|why| why.contains("differ")), "{wrong}");
        }
        assert_eq!(judge(Err(Error::new(Kind::Shader, "no such thing"))).unwrap().as_deref(), Some("no such thing"));
        assert_eq!(judge(Err(Error::new(Kind::DeviceLost, "gone"))).unwrap_err().kind(), Kind::DeviceLost);
    }
}
