//! The candidates of one node on the device: first right, then fast.

use std::time::{Duration, Instant};

use half::f16;

use super::lower;
use crate::autograd::Tunable;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Buffer, Feature, Gpu, Operand, Recorded, TextureSizes, Usage};
use crate::rng::Stream;
use crate::tensor::{DType, TensorType};

/// A choice and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The choice.
    pub choice: String,
    /// Fastest run, in seconds.
    pub seconds: f64,
}

/// A choice that must not be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The choice.
    pub choice: String,
    /// What is wrong with it.
    pub why: String,
}

/// What was found out about the candidates of a node.
pub(super) struct Trial {
    /// The choice without tuning.
    pub default: String,
    /// The right candidates and their times.
    pub measured: Vec<Measured>,
    /// The wrong ones.
    pub rejected: Vec<Rejected>,
}

/// Rounds of timing: candidates take turns, so that a device that changes its clock does so for all of them.
const ROUNDS: usize = 6;
/// Candidates slower than this many times the fastest so far drop out after the first round.
const HOPELESS: f64 = 1.5;
/// Without timestamps a batch of submissions lasts about this long at least.
const BATCH: Duration = Duration::from_millis(5);
/// Random numbers are costly to make and large tensors have millions: they repeat after a prime number of elements, so
/// that no shape makes neighbouring rows equal.
const PERIOD: usize = 65_521;

/// Checks and times the candidates of a node.
///
/// # Errors
/// What keeps the reference from running; what cost the device.
pub(super) fn measure(gpu: &Gpu, node: &Tunable, deadline: Instant) -> Result<Trial> {
    let candidates = &node.candidates;
    let bench = Bench::new(gpu, node)?;
    let reference = bench.prepare(gpu, node, &candidates.reference)?;
    let want = bench.run(gpu, &reference.recorded)?;
    let mut trial =
        Trial { default: candidates.choices.first().cloned().unwrap_or_default(), measured: vec![], rejected: vec![] };
    let mut right = vec![];
    for (i, choice) in candidates.choices.iter().enumerate() {
        // Without the first there is nothing to compare with.
        if i > 0 && Instant::now() >= deadline {
            break;
        }
        let checked = bench.prepare(gpu, node, choice).and_then(|prepared| {
            let got = bench.run(gpu, &prepared.recorded)?;
            Ok((prepared, disagreement(&got, &want, candidates.tolerance)))
        });
        match checked {
            Ok((prepared, None)) => right.push((choice, prepared, f64::INFINITY)),
            Ok((_, Some(why))) => trial.rejected.push(Rejected { choice: choice.clone(), why }),
            Err(e) if gpu.is_lost() => return Err(e),
            Err(e) => trial.rejected.push(Rejected { choice: choice.clone(), why: e.what().to_owned() }),
        }
    }
    for round in 0..ROUNDS {
        let fastest = right.iter().map(|r| r.2).fold(f64::INFINITY, f64::min);
        for (_, prepared, best) in &mut right {
            if round == 0 || *best <= HOPELESS * fastest && (round < 2 || Instant::now() < deadline) {
                *best = best.min(time(gpu, &prepared.recorded)?);
            }
        }
    }
    trial.measured =
        right.into_iter().map(|(choice, _, seconds)| Measured { choice: choice.clone(), seconds }).collect();
    Ok(trial)
}

/// The tensors that all candidates of a node share.
struct Bench {
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
    /// Which of the outputs are in f16.
    half: Vec<bool>,
    nothing: Vec<u8>,
}

/// A candidate ready to run.
struct Prepared {
    recorded: Vec<Recorded>,
    _scratch: Vec<Buffer>,
}

impl Bench {
    fn new(gpu: &Gpu, node: &Tunable) -> Result<Self> {
        let limit = gpu.caps().max_binding;
        if let Some(ty) =
            node.inputs.iter().chain(&node.outputs).find(|ty| ty.dtype == DType::U32 || ty.bytes() > limit)
        {
            return Err(Error::new(Kind::Unsupported, format!("a tensor {ty} cannot be tried on this device")));
        }
        let allocate = |ty: &TensorType| gpu.allocate("tuning", ty.bytes(), Usage::Storage);
        let inputs = node.inputs.iter().map(allocate).collect::<Result<Vec<_>>>()?;
        let outputs = node.outputs.iter().map(allocate).collect::<Result<Vec<_>>>()?;
        for (i, (buffer, ty)) in inputs.iter().zip(&node.inputs).enumerate() {
            let stream = Stream::named(i as u32, "tuning");
            let values: Vec<f32> = (0..PERIOD as u64).map(|at| stream.normal(at)).collect();
            let data: Vec<f32> = values.into_iter().cycle().take(ty.shape.len()).collect();
            match ty.is_half() {
                false => gpu.upload(buffer, bytemuck::cast_slice(&data)),
                true => {
                    // Whole words: buffers end with one.
                    let data = data.into_iter().map(|v| f16::from_f32(v).to_bits()).chain([0]);
                    let data: Vec<u16> = data.take(ty.shape.len().next_multiple_of(2)).collect();
                    gpu.upload(buffer, bytemuck::cast_slice(&data));
                }
            }
        }
        let largest = outputs.iter().map(Buffer::bytes).max().unwrap_or(0) as usize;
        let half = node.outputs.iter().map(TensorType::is_half).collect();
        // Not a number, in f32 as in f16: what a candidate does not write is seen.
        Ok(Self { inputs, outputs, half, nothing: vec![0xff; largest.next_multiple_of(4)] })
    }

    fn prepare(&self, gpu: &Gpu, node: &Tunable, choice: &str) -> Result<Prepared> {
        let lowered = lower(node, choice, gpu.caps())?;
        let scratch = (lowered.scratch.iter())
            .map(|ty| gpu.allocate("tuning scratch", ty.bytes(), Usage::Scratch))
            .collect::<Result<Vec<_>>>()?;
        let textures = gpu.allocate_textures(&TextureSizes::of(&lowered.dispatches))?;
        let recorded = (lowered.dispatches.iter())
            .map(|dispatch| {
                let buffer = |operand: Operand| match operand {
                    Operand::Input(i) => &self.inputs[i],
                    Operand::Output(i) => &self.outputs[i],
                    Operand::Scratch(i) => &scratch[i],
                };
                let buffers: Vec<&Buffer> = dispatch.bindings.iter().map(|b| buffer(b.operand)).collect();
                gpu.record(dispatch, &buffers, &textures)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Prepared { recorded, _scratch: scratch })
    }

    /// Runs once; the outputs one after another.
    fn run(&self, gpu: &Gpu, recorded: &[Recorded]) -> Result<Vec<f32>> {
        for output in &self.outputs {
            gpu.upload(output, &self.nothing[..(output.bytes() as usize).next_multiple_of(4)]);
        }
        gpu.submit(recorded);
        let mut all = vec![];
        for (output, half) in self.outputs.iter().zip(&self.half) {
            let bytes = gpu.download(output)?;
            match half {
                false => all.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
                true => all.extend(
                    bytemuck::pod_collect_to_vec::<u8, u16>(&bytes).into_iter().map(|b| f16::from_bits(b).to_f32()),
                ),
            }
        }
        Ok(all)
    }
}

/// What is wrong with a result: its error relative to the size of the reference, in the L2 or the maximum norm, exceeds
/// `tolerance`, or it is not finite.
fn disagreement(got: &[f32], want: &[f32], tolerance: f64) -> Option<String> {
    let (mut d2, mut w2, mut dm, mut wm) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for (&g, &w) in got.iter().zip(want) {
        let (d, w) = ((f64::from(g) - f64::from(w)).abs(), f64::from(w).abs());
        if !d.is_finite() {
            return Some("a result is missing or not finite".into());
        }
        (d2, w2, dm, wm) = (d2 + d * d, w2 + w * w, dm.max(d), wm.max(w));
    }
    let error = if wm == 0.0 { dm } else { (d2 / w2).sqrt().max(dm / wm) };
    (got.len() != want.len() || error > tolerance)
        .then(|| format!("it differs from the reference: relative error {error:.1e}, limit {tolerance:.0e}"))
}

/// Seconds of one run: by the device's own clock where it has one, else by ours around a batch of submissions.
fn time(gpu: &Gpu, recorded: &[Recorded]) -> Result<f64> {
    if gpu.adapter().features.contains(&Feature::Timestamps) {
        return Ok(gpu.submit_timed(recorded)?.iter().map(|t| t.seconds).sum());
    }
    let mut runs = 1;
    loop {
        gpu.wait()?;
        let started = Instant::now();
        for _ in 0..runs {
            gpu.submit(recorded);
        }
        gpu.wait()?;
        let elapsed = started.elapsed();
        if elapsed >= BATCH || runs >= 1 << 12 {
            return Ok(elapsed.as_secs_f64() / f64::from(runs));
        }
        runs *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disagreement_sees_small_shifts_single_outliers_and_missing_values() {
        let want: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let but = |at: usize, value: f32| {
            let mut got = want.clone();
            got[at] = value;
            disagreement(&got, &want, 1e-4)
        };
        assert_eq!(disagreement(&want, &want, 1e-4), None);
        assert_eq!(but(3, want[3] + 1e-5), None);
        assert!(but(3, want[3] + 1e-3).is_some_and(|why| why.contains("1e-4")));
        assert!(but(3, f32::NAN).is_some());
        assert!(disagreement(&want[1..], &want, 1e-4).is_some());
        assert!(disagreement(&[1e-6], &[0.0], 1e-4).is_none());
    }
}
