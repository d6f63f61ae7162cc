//! Global average pooling: `x: [N, H, W, C]` to `y: [N, C]`, `y[n, c] = sum over h, w of x[n, h, w, c] / (H W)`.
//!
//! Backward: `d_x[n, h, w, c] = d_y[n, c] / (H W)`.
//!
//! Kernels (`global_avg_pool.wgsl`): `forward`, one invocation a channel and a run of pixels, so that neighbouring
//! invocations read neighbouring channels; images of more than `RUN` pixels are summed in about equal runs, whose
//! sums a second launch of the same kernel adds. `grad_x`, one invocation an element.
//!
//! Numerics: the order of summation is fixed by the shape alone, and two stages keep the rounding error of large images
//! small.
//!
//! Paper: M. Lin, Q. Chen, S. Yan, "Network in network", ICLR 2014, section 3.2.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Access, Dispatch, Kernel, Operand, Source, Uniform, grid_for, uniform_block};
use crate::onnx;
use crate::ops::{WORKGROUP, float_shape, image_batch, moved};
use crate::tensor::{Shape, TensorType};

static SOURCE: Source = crate::wgsl!("global_avg_pool.wgsl");

/// Pixels that one invocation sums in a single stage.
const RUN: usize = 64;

uniform_block! {
    /// Mirrors `Params` of `global_avg_pool.wgsl`.
    struct Params { count: u32, pixels: u32, channels: u32, run: u32, runs: u32, factor: f32 }
}

/// The mean over the pixels of each image and channel.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if `x` is not a float image batch.
pub fn global_avg_pool(tape: &mut Tape, x: Tensor) -> Result<Tensor> {
    tape.push1(GlobalAvgPool, &[x])
}

/// How the pixels of an image are split: pixels a run, and runs. Both stages stay short: no more than about the square
/// root of the pixels for large images.
pub(crate) fn runs(pixels: usize) -> (usize, usize) {
    let runs = pixels.div_ceil(RUN.max(pixels.isqrt()));
    let run = pixels.div_ceil(runs);
    (run, pixels.div_ceil(run))
}

/// A launch that sums `pixels` of `[batch, pixels, channels]` in runs, to `[batch, runs, channels]`; without bindings.
/// `half` says whether what is read and what is written is f16.
pub(crate) fn sum_pixels([batch, pixels, channels]: [usize; 3], run: usize, factor: f32, half: [bool; 2]) -> Dispatch {
    let runs = pixels.div_ceil(run);
    let count = batch * runs * channels;
    let params = Params {
        count: count as u32,
        pixels: pixels as u32,
        channels: channels as u32,
        run: run as u32,
        runs: runs as u32,
        factor,
    };
    let read = batch * pixels * channels;
    let kernel = Kernel::new(&SOURCE, "forward")
        .with_half(half[0] || half[1])
        .with_element("X", half[0])
        .with_element("Y", half[1]);
    let size = |half| if half { 2 } else { 4 };
    Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP))
        .work(read as u64, (size(half[0]) * read + size(half[1]) * count) as u64)
}

fn factor(pixels: usize) -> f32 {
    (1.0 / pixels as f64) as f32
}

#[derive(Debug)]
struct GlobalAvgPool;

impl Op for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [n, _, _, c] = image_batch(&inputs[0])?;
        Ok(vec![inputs[0].with_shape([n, c])])
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let shape = tape.shape(node.inputs[0]).clone();
        Ok(vec![Some(tape.push1(GlobalAvgPoolGrad { shape }, &[d_y])?)])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let x = graph.map(&inputs[0])?;
        let [n, _, _, c] = image_batch(&TensorType::f32(x.shape().clone()))?;
        Ok(graph.map_node("GlobalAveragePool", &[&x], &[], [n, 1, 1, c]).view([n, c]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, h, w, c] = image_batch(&cx.inputs[0])?;
        let (run, runs) = runs(h * w);
        let half = cx.inputs[0].is_half();
        if runs == 1 {
            let dispatch = sum_pixels([n, h * w, c], run, factor(h * w), [half; 2]);
            return Ok(Lowered::one(dispatch.input(0).output(0)));
        }
        let partial = Operand::Scratch(0);
        Ok(Lowered {
            scratch: vec![TensorType::f32([n, runs, c])],
            dispatches: vec![
                sum_pixels([n, h * w, c], run, 1.0, [half, false]).input(0).bind(partial, Access::ReadWrite),
                sum_pixels([n, runs, c], runs, factor(h * w), [false, half]).bind(partial, Access::Read).output(0),
            ],
        })
    }
}

/// Input: `d_y`; output of the given image-batch shape.
#[derive(Debug)]
struct GlobalAvgPoolGrad {
    shape: Shape,
}

impl Op for GlobalAvgPoolGrad {
    fn name(&self) -> &'static str {
        "global_avg_pool.grad_x"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        float_shape(&inputs[0])?;
        Ok(vec![inputs[0].with_shape(self.shape.clone())])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let [n, h, w, c] = image_batch(&cx.outputs[0])?;
        let count = n * h * w * c;
        let params = Params {
            count: count as u32,
            pixels: (h * w) as u32,
            channels: c as u32,
            run: 1,
            runs: 1,
            factor: factor(h * w),
        };
        // The launch does not read or write X and Y; the shader file declares bindings of them all the same.
        let half = cx.inputs[0].is_half();
        let kernel = Kernel::new(&SOURCE, "grad_x").with_half(half).with_element("X", half).with_element("Y", half);
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count, WORKGROUP));
        Ok(Lowered::one(dispatch.input(0).output(0).work(count as u64, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_cover_all_pixels_and_none_is_empty() {
        for pixels in 1..5000 {
            let (run, runs) = super::runs(pixels);
            assert!(run * runs >= pixels && run * (runs - 1) < pixels, "{pixels}: {runs} runs of {run}");
        }
    }
}
