//! 2-D convolution, NHWC: `y[n,p,q,k] = b[k] + sum_{r,s,c} x[n, p*sh + r*dh - top, q*sw + s*dw - left, c] *
//! w[r,s,c,k]`, zero outside of x. Shapes: x `[N, H, W, C]`, weight `[R, S, C/groups, K]`, bias `[K]`, y `[N, P, Q,
//! K]` with `P = (H + top + bottom - dh*(R-1) - 1) / sh + 1`, likewise Q. A linear layer is the 1x1 case on a 1x1 map.
//!
//! Backward: `d_x` gathers `d_y * w` over the windows that cover a pixel, `d_w` sums `x * d_y` over all windows, `d_b`
//! sums `d_y` over all pixels.
//!
//! # Kernels, from plain to fast
//!
//! 1. `conv2d_plain.wgsl`: one invocation for one element of the result. Takes everything, groups and depthwise
//!    included; every faster kernel is checked against it (and against the CPU twin).
//! 2. `conv2d_forward`, `conv2d_grad_input`, `conv2d_grad_weight`: the same three sums as matrix products whose
//!    left-hand matrix is never built ("implicit GEMM", Chetlur et al., cuDNN, 2014, section 3). Each invocation keeps
//!    a tile of several rows by four or eight columns in registers, so that a value loaded once is used eight or more
//!    times. The data gradient goes by stride phase; the weight gradient splits its long reduction into runs that a
//!    second launch adds in order.
//! 3. Where the subgroup size is known and small (software drivers), a row's value is loaded by one lane only and
//!    passed to the others (`spread_subgroup.wgsl`): there a load costs as much as a dozen multiplications. Elsewhere
//!    each lane loads it for itself, from cache (`spread_direct.wgsl`). Where a driver was measured to load
//!    from textures faster than from buffers (`Caps::textures`), both factors are copied to textures first; where it is
//!    much faster, the kernels of depthwise convolutions below read from textures as well.
//! 4. `conv2d_tile_*`: the same products for GPUs proper. A workgroup loads slabs of both matrices into workgroup
//!    memory together, four channels a load, and each invocation multiplies its share of them in registers, while the next
//!    slabs are on their way (`lib/tile.wgsl`). There are several tile shapes; `choice.rs` takes one by the size of the
//!    result, and tuning may take another.
//! 5. `conv2d_coop.wgsl`, for f16 on devices whose subgroups multiply matrices as a whole ("cooperative matrices",
//!    tensor cores): the same implicit products, slice by slice through workgroup memory, in several tiles, most of which
//!    load the next slice while one is multiplied. Not used before [`prove`] has compared it with the plain kernels on the
//!    device, and nowhere that the subgroup size is not fixed.
//!
//! Beside the ladder stand the kernels of depthwise convolutions, whose cost is loads: `conv2d_strip_*`, where an
//! invocation computes four channels of a strip of pixels and keeps what their windows share in registers, and
//! `conv2d_depthwise_*`, where it computes a single pixel, for windows that registers do not hold (`depthwise.rs`). Other
//! grouped convolutions stay with the plain kernels.
//!
//! On software drivers the choice is 3 with shuffles, elsewhere 5 for f16 where it can be, and else 4; `choice.rs` has
//! the rule. What tuning has found for a shape on this device (`Caps::choices`) comes before both.
//!
//! The shape is compiled in as constants: loops have known lengths and divisions become multiplications.
//!
//! x and the weight are both f32 or both f16, and so are y and the gradients of x and y. The bias and the gradients of
//! weight and bias are always f32: in mixed precision they belong to f32 parameters.
//!
//! All sums are in f32; the order is fixed by the shape and the device, so results repeat bit for bit.

mod cases;
mod choice;
mod coop;
mod depthwise;
mod kernels;
mod prove;
mod reference;

pub use cases::{cases, normed_cases, random};
pub use choice::{Backend, WORKGROUP_TILES, WorkgroupTile};
pub use coop::{COOP_TILES, CoopTile};
pub use depthwise::{STRIPS, Strip};
pub use prove::prove;

pub use super::window::Padding;

use std::sync::Arc;

use crate::autograd::{Candidates, Finish, Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::onnx::{self, Attribute};
use crate::ops::{Tail, float_shape, same_shape};
use crate::tensor::{DType, TensorType};

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2d {
    /// Step along H and W.
    pub stride: [usize; 2],
    /// Zero padding.
    pub padding: Padding,
    /// Distance between taps along H and W.
    pub dilation: [usize; 2],
    /// Channel groups; C for depthwise.
    pub groups: usize,
    /// Which kernels to use.
    pub backend: Backend,
}

impl Default for Conv2d {
    /// Stride 1, no padding, no dilation, one group, kernels chosen for the device.
    fn default() -> Self {
        Self { stride: [1, 1], padding: Padding::default(), dilation: [1, 1], groups: 1, backend: Backend::Auto }
    }
}

/// All extents of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    r: usize,
    s: usize,
    out_h: usize,
    out_w: usize,
    conv: Conv2d,
    /// Element type of x, the weight, y and their gradients but the weight's.
    dtype: DType,
}

impl Geometry {
    /// The shape rule.
    pub(super) fn of(conv: Conv2d, x: &TensorType, weight: &TensorType) -> Result<Self> {
        let fail = |why: String| Err(Error::new(Kind::Shape, why));
        let (Some([n, h, w, c]), Some([r, s, group_c, k])) = (x.shape.nhwc(), weight.shape.nhwc()) else {
            return fail("a convolution takes x as [N, H, W, C] and the weight as [R, S, C / groups, K]".into());
        };
        if x.dtype == DType::U32 || weight.dtype != x.dtype {
            return fail(format!("a convolution takes f32 or f16 tensors of one type, not {x} and {weight}"));
        }
        let positive = [
            n,
            h,
            w,
            c,
            r,
            s,
            group_c,
            k,
            conv.groups,
            conv.stride[0],
            conv.stride[1],
            conv.dilation[0],
            conv.dilation[1],
        ];
        if positive.contains(&0) {
            return fail(format!("a convolution of x {} with weight {} has an extent of zero", x.shape, weight.shape));
        }
        if group_c * conv.groups != c || k % conv.groups != 0 {
            return fail(format!(
                "{c} channels and {k} filters do not go with weight {} in {} groups",
                weight.shape, conv.groups
            ));
        }
        let pad = conv.padding;
        let extent = |size: usize, before: usize, after: usize, kernel: usize, dilation: usize, stride: usize| {
            (size + before + after).checked_sub(dilation * (kernel - 1) + 1).map(|room| room / stride + 1)
        };
        let out_h = extent(h, pad.top, pad.bottom, r, conv.dilation[0], conv.stride[0]);
        let out_w = extent(w, pad.left, pad.right, s, conv.dilation[1], conv.stride[1]);
        let (Some(out_h), Some(out_w)) = (out_h, out_w) else {
            return fail(format!("a {r}x{s} kernel does not fit into a {h}x{w} map with its padding"));
        };
        Ok(Self { n, h, w, c, k, r, s, out_h, out_w, conv, dtype: x.dtype })
    }

    pub(super) fn macs(&self) -> u64 {
        let pixels = (self.n * self.out_h * self.out_w) as u64;
        pixels * (self.r * self.s * self.c / self.conv.groups) as u64 * self.k as u64
    }

    fn y(&self) -> TensorType {
        TensorType { shape: [self.n, self.out_h, self.out_w, self.k].into(), dtype: self.dtype }
    }
}

/// Convolution of x `[N, H, W, C]` with weight `[R, S, C/groups, K]` and an optional bias `[K]`.
///
/// # Errors
/// [`Kind::Shape`] if the extents do not go together.
pub fn conv2d(tape: &mut Tape, x: Tensor, weight: Tensor, bias: Option<Tensor>, conv: Conv2d) -> Result<Tensor> {
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    tape.push1(Forward { conv, has_bias: bias.is_some(), tail: Tail::default(), statistics: None }, &inputs)
}

/// A linear layer: x `[N, C]`, weight `[C, K]`, optional bias `[K]`; the result is `[N, K]`. The matrix product itself
/// is the same call without a bias.
///
/// # Errors
/// [`Kind::Shape`] if the extents do not go together.
pub fn linear(tape: &mut Tape, x: Tensor, weight: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    let (&[n, c], &[wc, k]) = (tape.shape(x).dims(), tape.shape(weight).dims()) else {
        return Err(
            Error::new(Kind::Shape, "a linear layer takes x as [N, C] and the weight as [C, K]").at(tape.scope())
        );
    };
    let x = tape.view(x, [n, 1, 1, c])?;
    let weight = tape.view(weight, [1, 1, wc, k])?;
    let y = conv2d(tape, x, weight, bias, Conv2d::default())?;
    tape.view(y, [n, k])
}

/// Inputs: x, the weight, the bias if there is one, the residual if there is one.
#[derive(Debug)]
struct Forward {
    conv: Conv2d,
    has_bias: bool,
    tail: Tail,
    /// Rows of a run, if the statistics of y are the second and third output: mean and sum of squared deviations
    /// `[runs, K]`.
    statistics: Option<usize>,
}

impl Op for Forward {
    fn name(&self) -> &'static str {
        if self.statistics.is_some() {
            return "conv2d+statistics";
        }
        match (self.tail.residual, self.tail.relu) {
            (false, false) => "conv2d",
            (false, true) => "conv2d+relu",
            (true, false) => "conv2d+add",
            (true, true) => "conv2d+add+relu",
        }
    }

    fn macs(&self, inputs: &[TensorType]) -> u64 {
        Geometry::of(self.conv, &inputs[0], &inputs[1]).map_or(0, |g| g.macs())
    }

    fn with_finish(&self, step: Finish) -> Option<Arc<dyn Op>> {
        let tail = self.tail.then(step).filter(|_| self.statistics.is_none());
        tail.map(|tail| Arc::new(Self { tail, ..*self }) as Arc<dyn Op>)
    }

    fn with_statistics(&self, cx: &Lower<'_>) -> Option<(usize, Arc<dyn Op>)> {
        let g = Geometry::of(self.conv, &cx.inputs[0], &cx.inputs[1]).ok()?;
        let alone = self.tail == Tail::default() && self.statistics.is_none();
        let run = kernels::statistics_run(&g, cx.caps).filter(|_| alone)?;
        Some((run, Arc::new(Self { statistics: Some(run), ..*self })))
    }

    fn without_statistics(&self) -> Option<Arc<dyn Op>> {
        self.statistics.map(|_| Arc::new(Self { statistics: None, ..*self }) as Arc<dyn Op>)
    }

    fn takes_scale(&self) -> Option<(usize, Arc<dyn Op>)> {
        // The bias has to come right behind the product.
        let biased = Self { has_bias: true, ..*self };
        (self.tail == Tail::default()).then(|| (1, Arc::new(biased) as Arc<dyn Op>))
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let g = Geometry::of(self.conv, &inputs[0], &inputs[1])?;
        match inputs.get(2) {
            Some(bias) if *bias != TensorType::f32([g.k]) => {
                Err(Error::new(Kind::Shape, format!("a bias of {bias} does not go with {} filters", g.k)))
            }
            _ => Ok(vec![g.y()]),
        }
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        let (x, weight) = (node.inputs[0], node.inputs[1]);
        let geometry = Geometry::of(self.conv, tape.ty(x), tape.ty(weight))?;
        let mut gradients = vec![None; node.inputs.len()];
        if node.wanted[0] {
            gradients[0] = Some(tape.push1(GradInput { geometry }, &[d_y, weight])?);
        }
        if node.wanted[1] {
            gradients[1] = Some(tape.push1(GradWeight { geometry }, &[x, d_y])?);
        }
        if node.wanted.get(2) == Some(&true) {
            gradients[2] = Some(tape.push1(GradBias, &[d_y])?);
        }
        Ok(gradients)
    }

    /// A convolution, or for a [linear layer](linear) a matrix product.
    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        if self.tail != Tail::default() || self.statistics.is_some() {
            return Err(Error::new(Kind::Internal, "a fused convolution has no ONNX form"));
        }
        let (x, weight) = (&inputs[0], &inputs[1]);
        let types = [x, weight].map(|v| TensorType::f32(v.shape().clone()));
        let g = Geometry::of(self.conv, &types[0], &types[1])?;
        let bias = inputs.get(2).map(|bias| graph.rows(bias)).transpose()?;
        if weight.is_matrix() {
            let x = graph.rows(&x.view([g.n, g.c]))?;
            let weight = graph.laid_out(weight, &[3, 2, 0, 1], &[g.k, g.c])?;
            let operands: Vec<_> = [Some(&x), Some(&weight), bias.as_ref()].into_iter().flatten().collect();
            let y = graph.row_node("Gemm", &operands, &[Attribute::Int("transB", 1)], [g.n, g.k]);
            return Ok(y.view([g.n, 1, 1, g.k]));
        }
        let x = graph.map(x)?;
        let weight = graph.laid_out(weight, &[3, 2, 0, 1], &[g.k, g.c / self.conv.groups, g.r, g.s])?;
        let attributes = [
            Attribute::extents("kernel_shape", &[g.r, g.s]),
            Attribute::extents("strides", &self.conv.stride),
            Attribute::extents("dilations", &self.conv.dilation),
            Attribute::Int("group", self.conv.groups as i64),
            self.conv.padding.onnx(),
        ];
        let operands: Vec<_> = [Some(&x), Some(&weight), bias.as_ref()].into_iter().flatten().collect();
        Ok(graph.map_node("Conv", &operands, &attributes, [g.n, g.out_h, g.out_w, g.k]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let g = Geometry::of(self.conv, &cx.inputs[0], &cx.inputs[1])?;
        kernels::forward(&g, self.has_bias, self.tail, self.statistics.is_some(), cx.caps)
    }

    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        choice::candidates(
            &Geometry::of(self.conv, &cx.inputs[0], &cx.inputs[1]).ok()?,
            choice::Product::Forward,
            cx.caps,
        )
    }
}

/// `d_x` from `d_y` and the weight.
#[derive(Debug)]
pub(super) struct GradInput {
    pub geometry: Geometry,
}

impl Op for GradInput {
    fn name(&self) -> &'static str {
        "conv2d.grad_input"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let g = &self.geometry;
        same_shape(&[g.y(), inputs[0].clone()])?;
        Ok(vec![g.y().with_shape([g.n, g.h, g.w, g.c])])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        kernels::grad_input(&self.geometry, cx.caps)
    }

    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        choice::candidates(&self.geometry, choice::Product::GradInput, cx.caps)
    }
}

/// `d_weight` from x and `d_y`.
#[derive(Debug)]
pub(super) struct GradWeight {
    pub geometry: Geometry,
}

impl Op for GradWeight {
    fn name(&self) -> &'static str {
        "conv2d.grad_weight"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let g = &self.geometry;
        same_shape(&[g.y(), inputs[1].clone()])?;
        Ok(vec![TensorType::f32([g.r, g.s, g.c / g.conv.groups, g.k])])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        kernels::grad_weight(&self.geometry, cx.caps)
    }

    fn candidates(&self, cx: &Lower<'_>) -> Option<Candidates> {
        choice::candidates(&self.geometry, choice::Product::GradWeight, cx.caps)
    }
}

/// `d_bias` from `d_y`: column sums, in f32.
#[derive(Debug)]
pub(super) struct GradBias;

impl Op for GradBias {
    fn name(&self) -> &'static str {
        "conv2d.grad_bias"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32([float_shape(&inputs[0])?.last()])])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        Ok(kernels::grad_bias(&cx.inputs[0]))
    }
}
