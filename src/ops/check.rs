//! Checking a case: kernels against the CPU twin, and the twin's gradient against finite differences.

use super::{Array, Case, Role, add, backward, backward_from, cast, mul, scale, sum};
use crate::autograd::{Executable, Plan, Store, Tape, Tensor};
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::rng::Stream;
use crate::tensor::DType;

/// One compared tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was compared, such as `output 0` or `gradient of input 1`.
    pub what: String,
    /// Error relative to the size of the reference: the larger of the L2 and the maximum norm.
    pub error: f64,
    /// Largest error accepted.
    pub limit: f64,
}

/// The result of a case on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseReport {
    /// `op/name`.
    pub label: String,
    /// Every compared tensor.
    pub measured: Vec<Measured>,
}

impl CaseReport {
    /// Whether every error is within its limit. NaN is not.
    pub fn passed(&self) -> bool {
        !self.measured.is_empty() && self.measured.iter().all(|m| m.error <= m.limit)
    }

    /// The comparison closest to (or furthest beyond) its limit.
    pub fn worst(&self) -> Option<&Measured> {
        let ratio = |m: &Measured| if m.error.is_nan() { f64::INFINITY } else { m.error / m.limit };
        self.measured.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
    }
}

/// The larger of two numbers; unlike `f64::max` NaN if one of them is, so that folds do not lose it.
pub fn larger(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// Error of `got` relative to the size of `want`: the larger of L2 over L2 and maximum over maximum. Where the reference is
/// NaN or infinite, so must the result be.
pub(super) fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    let l2 = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let max = |v: &mut dyn Iterator<Item = f64>| v.map(f64::abs).fold(0.0, larger);
    let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
    let difference = || got.iter().zip(want).map(|(&a, &b)| if same(a, b) { 0.0 } else { a - b });
    let finite = || want.iter().copied().filter(|v| v.is_finite());
    let (d2, w2) = (l2(&mut difference()), l2(&mut finite()));
    let (dm, wm) = (max(&mut difference()), max(&mut finite()));
    if w2 == 0.0 { dm } else { larger(d2 / w2, dm / wm) }
}

fn streams(case: &Case, seed: u32) -> impl Fn(&str) -> Stream {
    let label = case.label();
    move |what| Stream::named(seed, &format!("{label}/{what}"))
}

fn inputs(case: &Case, seed: u32) -> Vec<Array<f32>> {
    let stream = streams(case, seed);
    case.inputs.iter().enumerate().map(|(i, input)| input.values(stream(&format!("input {i}")))).collect()
}

/// Random output gradients of the given shapes.
fn output_gradients(case: &Case, seed: u32, outputs: &[Array<f64>]) -> Vec<Array<f32>> {
    let stream = streams(case, seed);
    let normal = |s: Stream, n: usize| (0..n as u64).map(|i| s.normal(i)).collect();
    outputs
        .iter()
        .enumerate()
        .map(|(j, o)| Array::new(o.shape.clone(), normal(stream(&format!("d_output {j}")), o.data.len())))
        .collect()
}

/// The element types of a case's outputs.
fn output_types(case: &Case) -> Result<Vec<DType>> {
    let mut tape = Tape::new();
    let mut inputs = vec![];
    for (i, input) in case.inputs.iter().enumerate() {
        inputs.push(tape.variable(&format!("input {i}"), input.ty.clone(), input.role == Role::Differentiable)?);
    }
    Ok((case.trace)(&mut tape, &inputs)?.into_iter().map(|t| tape.ty(t).dtype).collect())
}

/// Compares the twin's backward with central differences of its forward along random directions, both in f64.
/// Returns the largest relative error over the differentiable inputs.
pub fn finite_differences(case: &Case, seed: u32) -> f64 {
    let x: Vec<Array<f64>> = inputs(case, seed).iter().map(Array::cast).collect();
    let outputs = case.twin.forward_f64(&x);
    let updated = case.inputs.iter().filter(|i| i.role == Role::Updated).count();
    let outputs = &outputs[..outputs.len() - updated];
    let d_out: Vec<Array<f64>> = output_gradients(case, seed, outputs).iter().map(Array::cast).collect();
    let gradients = case.twin.backward_f64(&x, &d_out);
    let loss = |x: &[Array<f64>]| -> f64 {
        let y = case.twin.forward_f64(x);
        y.iter().zip(&d_out).map(|(y, d)| y.data.iter().zip(&d.data).map(|(a, b)| a * b).sum::<f64>()).sum()
    };
    let stream = streams(case, seed);
    let mut worst: f64 = 0.0;
    for (i, input) in case.inputs.iter().enumerate().filter(|(_, input)| input.role == Role::Differentiable) {
        let Some(gradient) = &gradients[i] else { return f64::NAN };
        for trial in 0..4 {
            let s = stream(&format!("direction {i} {trial}"));
            let direction: Vec<f64> = (0..input.ty.shape.len() as u64).map(|k| f64::from(s.normal(k))).collect();
            let step = 1e-6;
            let moved = |sign: f64| {
                let mut x = x.clone();
                x[i].data.iter_mut().zip(&direction).for_each(|(v, d)| *v += sign * step * d);
                loss(&x)
            };
            let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            let analytic: f64 = gradient.data.iter().zip(&direction).map(|(g, d)| g * d).sum();
            // A random direction has a typical inner product of the gradient's length.
            let length = gradient.data.iter().map(|g| g * g).sum::<f64>().sqrt().max(1e-8);
            worst = worst.max((numeric - analytic).abs() / length);
            if (numeric - analytic).is_nan() {
                return f64::NAN;
            }
        }
    }
    worst
}

/// Relative error of one rounding to f16, which has 11 significant bits: half a unit where a driver rounds to the
/// nearest, a whole one where it truncates.
const HALF_ROUNDING: f64 = 1.0 / 1024.0;
/// Below f16's smallest normal number drivers may round to multiples of 2^-24 or flush to zero.
const HALF_SMALLEST: f64 = 1.0 / 16384.0;
/// A gradient in f16 is rounded itself, may come from a rounded output, whose error a backward rule may double (the
/// sigmoid's), and mid-graph from one more addition.
const HALF_GRADIENT: f64 = 4.0;

/// Runs a case on a device, forward and backward, alone and in the middle of a graph, and compares everything with the
/// CPU twin in f64.
///
/// # Errors
/// Errors of tracing, planning or the device; a wrong number is not an error but a report that did not pass.
pub fn check_case(gpu: &Gpu, case: &Case, seed: u32) -> Result<CaseReport> {
    check_case_as(gpu, gpu.caps(), case, seed)
}

/// [`check_case`] with the kernels that are chosen for `caps`, which the device must be able to run.
///
/// # Errors
/// As [`check_case`].
pub fn check_case_as(gpu: &Gpu, caps: &Caps, case: &Case, seed: u32) -> Result<CaseReport> {
    check_case_at(gpu, caps, case, seed, &[Position::Alone, Position::MidGraph])
}

/// Where a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Alone,
    /// Its inputs are results, each used a second time, and its gradients do not begin with one.
    MidGraph,
}

/// [`check_case_as`] in some positions only.
pub(super) fn check_case_at(
    gpu: &Gpu,
    caps: &Caps,
    case: &Case,
    seed: u32,
    positions: &[Position],
) -> Result<CaseReport> {
    let x = inputs(case, seed);
    let x64: Vec<Array<f64>> = x.iter().map(Array::cast).collect();
    let all64 = case.twin.forward_f64(&x64);
    let all32 = case.twin.forward_f32(&x);
    let updated: Vec<usize> = (0..x.len()).filter(|&i| case.inputs[i].role == Role::Updated).collect();
    let outputs = all64.len() - updated.len();
    let differentiable: Vec<usize> = (0..x.len()).filter(|&i| case.inputs[i].role == Role::Differentiable).collect();
    let mut d_out = output_gradients(case, seed, &all64[..outputs]);
    for (d, dtype) in d_out.iter_mut().zip(output_types(case)?) {
        // As the device holds them.
        if dtype == DType::F16 {
            d.data = dtype.decode(&dtype.encode(&d.data));
        }
    }
    let (grad64, grad32) = if differentiable.is_empty() {
        (vec![], vec![])
    } else {
        let d64: Vec<Array<f64>> = d_out.iter().map(Array::cast).collect();
        (case.twin.backward_f64(&x64, &d64), case.twin.backward_f32(&x, &d_out))
    };
    let size = |of: &Array<f64>| of.data.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    // `half` is how often the numbers were rounded to f16, if they were.
    let limit = |f32s: &Array<f32>, f64s: &Array<f64>, half: f64| {
        let own: Array<f64> = f32s.cast();
        let size = size(f64s);
        let half = if half == 0.0 { 0.0 } else { half * HALF_ROUNDING.max(HALF_SMALLEST / size.max(HALF_SMALLEST)) };
        case.tolerance.max(10.0 * relative_error(&own.data, &f64s.data)) + half
    };

    let mut report = CaseReport { label: case.label(), measured: vec![] };
    let mut compare = |what: String, got: &[f64], want: &[f64], limit: f64| {
        let error = if got.len() == want.len() { relative_error(got, want) } else { f64::NAN };
        report.measured.push(Measured { what, error, limit });
    };

    for &position in positions {
        let mid_graph = position == Position::MidGraph;
        if mid_graph && differentiable.is_empty() {
            continue;
        }
        let mut tape = Tape::new();
        let mut leaves = vec![];
        for (i, input) in case.inputs.iter().enumerate() {
            leaves.push(tape.variable(&format!("input {i}"), input.ty.clone(), input.role == Role::Differentiable)?);
        }
        let is_leaf = |i: usize| differentiable.contains(&i);
        // In mid-graph position the leaves hold half the values: doubling is exact.
        let operands = (0..leaves.len())
            .map(|i| if mid_graph && is_leaf(i) { scale::scale(&mut tape, leaves[i], 2.0) } else { Ok(leaves[i]) })
            .collect::<Result<Vec<_>>>()?;
        let y = (case.trace)(&mut tape, &operands)?;
        let mut weights = vec![];
        for (j, &t) in y.iter().enumerate().filter(|_| !differentiable.is_empty()) {
            weights.push(tape.variable(&format!("weight {j}"), tape.ty(t).clone(), false)?);
        }
        let gradients = if differentiable.is_empty() {
            None
        } else if mid_graph {
            Some(mid_graph_loss(&mut tape, &y, &weights, &leaves, &differentiable)?)
        } else {
            let seeds: Vec<(Tensor, Tensor)> = y.iter().copied().zip(weights.iter().copied()).collect();
            Some(backward_from(&mut tape, &seeds)?)
        };
        let mut wanted = y.clone();
        for &i in &differentiable {
            wanted.extend(gradients.as_ref().and_then(|g| g.get(leaves[i])));
        }
        let plan = Plan::new(&tape, &wanted, caps)?;
        let mut store = Store::new();
        let executable = Executable::new(gpu, plan, &mut store)?;
        for (i, input) in case.inputs.iter().enumerate() {
            let values = if mid_graph && is_leaf(i) { x[i].map(|v| v * 0.5) } else { x[i].clone() };
            if store.types().any(|(name, _)| name == format!("input {i}")) {
                store.write_bytes(gpu, &format!("input {i}"), &input.bytes(&values))?;
            }
        }
        for (j, d) in d_out.iter().enumerate().take(weights.len()) {
            store.write_bytes(gpu, &format!("weight {j}"), &tape.ty(y[j]).dtype.encode(&d.data))?;
        }
        executable.run(gpu);
        let prefix = if mid_graph { "mid-graph " } else { "" };
        for (j, &t) in y.iter().enumerate() {
            let raw = executable.read_output(gpu, j)?;
            let got: Vec<f64> = match tape.ty(t).dtype {
                DType::F32 | DType::F16 => raw.data().iter().map(|&v| f64::from(v)).collect(),
                DType::U32 => raw.data().iter().map(|&v| f64::from(v.to_bits())).collect(),
            };
            let half = if tape.ty(t).is_half() { 1.0 } else { 0.0 };
            compare(format!("{prefix}output {j}"), &got, &all64[j].data, limit(&all32[j], &all64[j], half));
        }
        for (k, &i) in differentiable.iter().enumerate() {
            let (Some(want), Some(own)) = (&grad64[i], &grad32[i]) else {
                compare(format!("{prefix}gradient of input {i} (missing in the twin)"), &[f64::NAN], &[0.0], 0.0);
                continue;
            };
            let got = if y.len() + k < wanted.len() {
                executable.read_output(gpu, y.len() + k)?.into_data().into_iter().map(f64::from).collect()
            } else {
                vec![]
            };
            let expected = if mid_graph { want.map(|v| 2.0 * v + 3.0) } else { want.clone() };
            let half = wanted.get(y.len() + k).is_some_and(|&t| tape.ty(t).is_half());
            let limit = limit(own, want, if half { HALF_GRADIENT } else { 0.0 });
            // Both addends are rounded, and may nearly cancel where there are few elements.
            let addends = if mid_graph { 3.0_f64.max(2.0 * size(want)) } else { 0.0 };
            let limit = limit * (addends / size(&expected).max(f64::MIN_POSITIVE)).max(1.0);
            compare(format!("{prefix}gradient of input {i}"), &got, &expected.data, limit);
        }
        for (u, &i) in updated.iter().enumerate().filter(|_| !mid_graph) {
            let got: Vec<f64> = match case.inputs[i].ty.dtype {
                DType::F32 | DType::F16 => {
                    store.read(gpu, &format!("input {i}"))?.into_data().into_iter().map(f64::from).collect()
                }
                DType::U32 => bytemuck::pod_collect_to_vec::<u8, u32>(&store.read_bytes(gpu, &format!("input {i}"))?)
                    .into_iter()
                    .map(f64::from)
                    .collect(),
            };
            let (want, own) = (&all64[outputs + u], &all32[outputs + u]);
            compare(format!("updated input {i}"), &got, &want.data, limit(own, want, 0.0));
        }
    }
    Ok(report)
}

/// A loss around the op under test: every output times a weight, summed, plus three times every leaf, so that the op
/// sees an incoming gradient that is not one and its input is used twice.
fn mid_graph_loss(
    tape: &mut Tape,
    outputs: &[Tensor],
    weights: &[Tensor],
    leaves: &[Tensor],
    differentiable: &[usize],
) -> Result<crate::autograd::Gradients> {
    let mut terms = vec![];
    for (&y, &w) in outputs.iter().zip(weights) {
        let weighted = mul::mul(tape, y, w)?;
        let weighted = cast::cast(tape, weighted, DType::F32)?;
        terms.push(sum::sum(tape, weighted)?);
    }
    for &i in differentiable {
        let tripled = scale::scale(tape, leaves[i], 3.0)?;
        let tripled = cast::cast(tape, tripled, DType::F32)?;
        terms.push(sum::sum(tape, tripled)?);
    }
    let mut loss = terms[0];
    for &term in &terms[1..] {
        loss = add::add(tape, loss, term)?;
    }
    backward(tape, loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_an_error_wherever_it_stands() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for bad in [nan, inf, -inf] {
            for at in 0..3 {
                let mut got = [1.0, 2.0, 3.0];
                got[at] = bad;
                assert!(!relative_error(&got, &[1.0, 2.0, 3.0]).is_finite(), "{got:?}");
                assert!(!relative_error(&got, &[0.0; 3]).is_finite(), "{got:?}");
                assert!(!relative_error(&[1.0, 2.0, 3.0], &got).is_finite(), "{got:?}");
                assert_eq!(relative_error(&got, &got), 0.0, "{got:?}");
            }
        }
        assert_eq!(relative_error(&[1.0, nan, 4.0], &[1.0, nan, 3.0]), larger(1.0 / 10.0_f64.sqrt(), 1.0 / 3.0));
        assert!(larger(nan, 1.0).is_nan() && larger(1.0, nan).is_nan() && larger(1.0, 2.0) == 2.0);
    }
}
