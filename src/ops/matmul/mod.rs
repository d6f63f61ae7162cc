//! Products of matrices, one for each of a batch: `y = scale * A B` with A `[.., M, K]`, B `[.., K, N]`, y `[.., M,
//! N]`. Either operand may be stored transposed, and each tensor *interleaved*: `[batch, rows, heads, columns]` instead
//! of `[batch, heads, rows, columns]`, which is how the heads of an attention lie in the result of a linear layer. So
//! attention moves no tensor around.
//!
//! Backward: `d_A = scale * d_y B^T` and `d_B = scale * A^T d_y`, which are the op itself with other transpositions.
//!
//! Kernel (`matmul.wgsl`): `forward`, four rows by four columns an invocation in registers, without workgroup memory;
//! each tensor by loads and stores of four where what is contiguous is a multiple of four. For a linear layer, one
//! matrix for all of the batch, [`linear`](crate::ops::conv2d::linear) has more and faster kernels.
//!
//! All three tensors are f32 or all are f16; sums are in f32, along the depth in order.

mod cases;
mod reference;

pub use cases::{cases, random};

use crate::autograd::{Lower, Lowered, NodeView, Op, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Dispatch, Kernel, Source, Uniform, grid, uniform_block};
use crate::onnx;
use crate::ops::{float_shape, moved};
use crate::tensor::{HostTensor, Shape, TensorType};

static SOURCE: Source = crate::wgsl!("matmul.wgsl");

crate::library!(A_VEC4, "matmul_a_vec4.wgsl");
crate::library!(A_SCALAR, "matmul_a_scalar.wgsl");
crate::library!(B_VEC4, "matmul_b_vec4.wgsl");
crate::library!(B_SCALAR, "matmul_b_scalar.wgsl");
crate::library!(Y_VEC4, "matmul_y_vec4.wgsl");
crate::library!(Y_SCALAR, "matmul_y_scalar.wgsl");

uniform_block! {
    /// Mirrors `Params` of `matmul.wgsl`.
    struct Params {
        rows: u32, columns: u32, depth: u32,
        inner: u32,
        a_outer: u32, a_inner: u32, a_line: u32,
        b_outer: u32, b_inner: u32, b_line: u32,
        y_outer: u32, y_inner: u32, y_line: u32,
        scale: f32,
    }
}

/// Rows and columns of the result that a workgroup computes: `4 * SIDE` of the shader.
const TILE: usize = 32;
/// Most matrices: one axis of the grid.
const MAX_BATCH: usize = 65_535;

/// What is multiplied with what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matmul {
    /// Whether A is stored as `[.., K, M]`, and whether B is as `[.., N, K]`.
    pub transposed: [bool; 2],
    /// Whether A, B and y are stored as `[batch, rows, heads, columns]`.
    pub interleaved: [bool; 3],
    /// What the product is multiplied by.
    pub scale: f32,
}

impl Default for Matmul {
    /// `A B`, nothing interleaved.
    fn default() -> Self {
        Self { transposed: [false; 2], interleaved: [false; 3], scale: 1.0 }
    }
}

/// The product of each matrix of `a` with that of `b`.
///
/// # Errors
/// [`Kind::Shape`] if the shapes do not go together or the element types differ.
pub fn matmul(tape: &mut Tape, a: Tensor, b: Tensor, spec: Matmul) -> Result<Tensor> {
    tape.push1(Product { spec }, &[a, b])
}

/// Where the matrices of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Matrices {
    batch: Vec<usize>,
    lines: usize,
    length: usize,
    outer: usize,
    inner: usize,
    line: usize,
}

impl Matrices {
    fn of(shape: &Shape, interleaved: bool) -> Result<Self> {
        let dims = shape.dims();
        match (interleaved, dims) {
            (true, &[n, lines, heads, length]) => Ok(Self {
                batch: vec![n, heads],
                lines,
                length,
                outer: lines * heads * length,
                inner: length,
                line: heads * length,
            }),
            (false, [batch @ .., lines, length]) => Ok(Self {
                batch: batch.to_vec(),
                lines: *lines,
                length: *length,
                outer: batch.last().unwrap_or(&1) * lines * length,
                inner: lines * length,
                line: *length,
            }),
            _ => Err(Error::new(Kind::Shape, format!("{shape} does not hold matrices"))),
        }
    }

    /// Whether loads and stores of four never straddle two lines.
    fn in_fours(&self) -> bool {
        self.length.is_multiple_of(4)
    }
}

/// The axes of a tensor in the order that ONNX multiplies matrices in. Two of them change places if it is interleaved,
/// which is undone by the same order.
fn turn(rank: usize, interleaved: bool, transposed: bool) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    if interleaved {
        axes.swap(1, 2);
    }
    if transposed {
        axes.swap(rank - 2, rank - 1);
    }
    axes
}

/// An ONNX value with its axes in another order; itself if the order is the same.
fn transpose(graph: &mut onnx::Graph, x: &onnx::Value, axes: &[usize]) -> onnx::Value {
    if axes.is_sorted() {
        return x.clone();
    }
    let shape: Vec<usize> = axes.iter().map(|&axis| x.shape().dims()[axis]).collect();
    graph.row_node("Transpose", &[x], &[onnx::Attribute::extents("perm", axes)], shape)
}

#[derive(Debug)]
struct Product {
    spec: Matmul,
}

impl Op for Product {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let a = Matrices::of(float_shape(&inputs[0])?, self.spec.interleaved[0])?;
        let b = Matrices::of(float_shape(&inputs[1])?, self.spec.interleaved[1])?;
        let (m, depth) = if self.spec.transposed[0] { (a.length, a.lines) } else { (a.lines, a.length) };
        let (n, other) = if self.spec.transposed[1] { (b.lines, b.length) } else { (b.length, b.lines) };
        let matrices: usize = a.batch.iter().product();
        if depth != other || a.batch != b.batch || inputs[0].dtype != inputs[1].dtype || matrices > MAX_BATCH {
            let message = format!("matrices of {} and {} cannot be multiplied ({:?})", inputs[0], inputs[1], self.spec);
            return Err(Error::new(Kind::Shape, message));
        }
        let shape = match (self.spec.interleaved[2], a.batch.as_slice()) {
            (true, &[outer, inner]) => vec![outer, m, inner, n],
            (true, _) => return Err(Error::new(Kind::Shape, "only a batch of two axes can be interleaved")),
            (false, batch) => [batch, &[m, n]].concat(),
        };
        let y = inputs[0].with_shape(shape);
        float_shape(&y)?;
        Ok(vec![y])
    }

    fn macs(&self, inputs: &[TensorType]) -> u64 {
        let (Ok(a), Ok(y)) = (Matrices::of(&inputs[0].shape, self.spec.interleaved[0]), self.infer(inputs)) else {
            return 0;
        };
        let depth = if self.spec.transposed[0] { a.lines } else { a.length };
        (y[0].shape.len() * depth) as u64
    }

    fn backward(&self, tape: &mut Tape, node: &NodeView, d_outputs: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let Matmul { transposed: [ta, tb], interleaved: [ia, ib, iy], scale } = self.spec;
        let mut product =
            |x, y, transposed, interleaved| matmul(tape, x, y, Matmul { transposed, interleaved, scale }).map(Some);
        let d_a = match (node.wanted[0], ta) {
            (false, _) => None,
            (true, false) => product(d_y, b, [false, !tb], [iy, ib, ia])?,
            (true, true) => product(b, d_y, [tb, true], [ib, iy, ia])?,
        };
        let d_b = match (node.wanted[1], tb) {
            (false, _) => None,
            (true, false) => product(a, d_y, [!ta, false], [ia, iy, ib])?,
            (true, true) => product(d_y, a, [true, ta], [iy, ia, ib])?,
        };
        Ok(vec![d_a, d_b])
    }

    fn onnx(&self, graph: &mut onnx::Graph, inputs: &[onnx::Value]) -> Result<onnx::Value> {
        let Matmul { transposed, interleaved, scale } = self.spec;
        let types: Vec<_> = inputs.iter().map(|v| TensorType::f32(v.shape().clone())).collect();
        let shape = self.infer(&types)?.remove(0).shape;
        let mut operands = vec![];
        for (i, x) in inputs.iter().enumerate() {
            let x = graph.rows(x)?;
            let axes = turn(x.shape().rank(), interleaved[i], transposed[i]);
            operands.push(transpose(graph, &x, &axes));
        }
        let axes = turn(shape.rank(), interleaved[2], false);
        let product: Vec<usize> = axes.iter().map(|&axis| shape.dims()[axis]).collect();
        let mut y = graph.row_node("MatMul", &[&operands[0], &operands[1]], &[], product);
        if scale != 1.0 {
            let factor = graph.constant("scale", &HostTensor::full([1], scale));
            y = graph.node_like("Mul", &[&y, &factor], &[], &y);
        }
        Ok(transpose(graph, &y, &axes))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Lowered> {
        let of = |ty: &TensorType, i: usize| Matrices::of(&ty.shape, self.spec.interleaved[i]);
        let (a, b, y) = (of(&cx.inputs[0], 0)?, of(&cx.inputs[1], 1)?, of(&cx.outputs[0], 2)?);
        let depth = if self.spec.transposed[0] { a.lines } else { a.length };
        let matrices: usize = y.batch.iter().product();
        let params = Params {
            rows: y.lines as u32,
            columns: y.length as u32,
            depth: depth as u32,
            inner: y.batch.last().copied().unwrap_or(1) as u32,
            a_outer: a.outer as u32,
            a_inner: a.inner as u32,
            a_line: a.line as u32,
            b_outer: b.outer as u32,
            b_inner: b.inner as u32,
            b_line: b.line as u32,
            y_outer: y.outer as u32,
            y_inner: y.inner as u32,
            y_line: y.line as u32,
            scale: self.spec.scale,
        };
        let kernel = Kernel::new(&SOURCE, "forward")
            .with_half(cx.inputs[0].is_half())
            .with_bool("TRANSPOSE_A", self.spec.transposed[0])
            .with_bool("TRANSPOSE_B", self.spec.transposed[1])
            .with_library(if a.in_fours() { &A_VEC4 } else { &A_SCALAR })
            .with_library(if b.in_fours() { &B_VEC4 } else { &B_SCALAR })
            .with_library(if y.in_fours() { &Y_VEC4 } else { &Y_SCALAR });
        let tiles = y.lines.div_ceil(TILE) * y.length.div_ceil(TILE);
        let [gx, gy, _] = grid(tiles as u64);
        let dispatch = Dispatch::new(kernel, params.block(), [gx, gy, matrices as u32]).specialised();
        let flops = 2 * (cx.outputs[0].shape.len() * depth) as u64;
        Ok(Lowered::one(dispatch.input(0).input(1).output(0).work(flops, moved(cx))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_formula_and_what_does_not_go_together_is_refused() {
        let mut tape = Tape::new();
        let mut input = |dims: &[usize]| {
            let name = format!("{dims:?}");
            tape.input(name, TensorType::f32(dims.to_vec()))
        };
        let (a, b, c, scalar) = (input(&[2, 3, 5]), input(&[2, 5, 7]), input(&[2, 7, 5]), input(&[4]));
        let plain = Matmul::default();
        let turned = Matmul { transposed: [false, true], ..plain };
        let y = matmul(&mut tape, a, b, plain).unwrap();
        assert_eq!(tape.shape(y).dims(), [2, 3, 7]);
        let y = matmul(&mut tape, a, c, turned).unwrap();
        assert_eq!(tape.shape(y).dims(), [2, 3, 7]);
        let interleaved = Matmul { interleaved: [true; 3], ..plain };
        for (x, y, spec) in [(a, c, plain), (a, b, turned), (a, scalar, plain), (a, b, interleaved)] {
            assert_eq!(matmul(&mut tape, x, y, spec).unwrap_err().kind(), Kind::Shape);
        }
    }
}
