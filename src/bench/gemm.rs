//! The product of two square matrices, timed: what the convolutions' kernels make of the simplest shape there is.

use std::time::Instant;

use serde::Serialize;

use super::Ceilings;
use crate::autograd::{Executable, Plan, Store, Tape, Tunable};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Caps, Gpu};
use crate::ops::conv2d;
use crate::rng::Stream;
use crate::tensor::{DType, HostTensor, TensorType};
use crate::tune::TuningCache;

/// Timed runs.
const RUNS: usize = 9;
/// Entries of the result that are computed again on the host.
const CHECKED: u64 = 64;
/// Largest error of an entry, by the root of the sum of its squared terms.
const TOLERANCE: f64 = 1e-4;
/// The same where factors are given and results stored in f16.
const TOLERANCE_HALF: f64 = 4e-3;

/// The time of one product.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GemmTiming {
    /// Rows and columns of all three matrices.
    pub size: usize,
    /// Element type of the factors and the result; sums are f32.
    pub precision: &'static str,
    /// The kernel.
    pub kernel: String,
    /// What tuning chose, or the rule: the kernel's tile.
    pub choice: Option<String>,
    /// Seconds of each run, sorted.
    pub seconds: Vec<f64>,
    /// Operations a second of the median run.
    pub flops_per_second: f64,
    /// Their share of the ceiling,
    pub share: f64,
    /// which is that of `f32` or `matrices`.
    pub ceiling: &'static str,
}

/// A benchmark of matrix products.
#[derive(Debug, Clone)]
pub struct GemmBench {
    /// Rows and columns.
    pub size: usize,
    /// What was measured on the adapter, which then chooses the kernels.
    pub tuning: Option<TuningCache>,
}

impl GemmBench {
    fn plan(&self, dtype: DType, caps: &Caps) -> Result<Plan> {
        let n = self.size;
        if n == 0 {
            return Err(Error::new(Kind::Usage, "a matrix needs at least one row"));
        }
        let mut tape = Tape::new();
        let ty = TensorType { shape: [n, n].into(), dtype };
        let (a, b) = (tape.variable("a", ty.clone(), false)?, tape.variable("b", ty, false)?);
        let y = conv2d::linear(&mut tape, a, b, None)?;
        Plan::new(&tape, &[y], caps).map_err(|e| e.next("use smaller matrices"))
    }

    /// What there is to tune of the product: in f32 and, where the device has it, f16.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn tunable(&self, caps: &Caps) -> Result<Vec<Tunable>> {
        let types = [DType::F32, DType::F16].into_iter().filter(|&dtype| caps.f16 || dtype == DType::F32);
        let plans = types.map(|dtype| self.plan(dtype, caps)).collect::<Result<Vec<_>>>()?;
        Ok(plans.into_iter().flat_map(|plan| plan.tunable).collect())
    }

    /// Times the product in f32 or f16. `check` is called between launches and may end it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a size of zero, [`Kind::OutOfMemory`] if the matrices do not fit, [`Kind::Unsupported`] for f16
    /// on a device without, [`Kind::SelfTest`] if an entry of the result is wrong; those of `check`; device errors.
    pub fn run(
        &self,
        gpu: &Gpu,
        dtype: DType,
        ceilings: &Ceilings,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<GemmTiming> {
        let n = self.size;
        let untuned = self.plan(dtype, gpu.caps())?;
        let choices = self.tuning.as_ref().map(|cache| cache.choices(&untuned.tunable)).unwrap_or_default();
        let caps = gpu.caps().with_choices(choices);
        let plan = self.plan(dtype, &caps)?;
        let choice = plan.tunable.first().and_then(|node: &Tunable| {
            let key = &node.candidates.key;
            caps.choices.get(key).or_else(|| node.candidates.choices.first()).cloned()
        });
        let (flops, launched) = (2.0 * (n as f64).powi(3), plan.dispatches.first().map(|d| d.dispatch.kernel.clone()));
        let matrices = launched.as_ref().is_some_and(|kernel| kernel.matrices.is_some());

        let mut store = Store::new();
        let executable = Executable::new(gpu, plan, &mut store)?;
        let factor = |name: &str| {
            let stream = Stream::named(1, name);
            let data: Vec<f32> = (0..(n * n) as u64).map(|i| stream.normal(i)).collect();
            // Rounded, as the device gets it.
            HostTensor::new([n, n], dtype.decode(&dtype.encode(&data)))
        };
        let (a, b) = (factor("gemm/a"), factor("gemm/b"));
        store.write(gpu, "a", &a)?;
        store.write(gpu, "b", &b)?;
        check()?;
        executable.run(gpu);
        let tolerance = if dtype == DType::F16 { TOLERANCE_HALF } else { TOLERANCE };
        compare(gpu, &executable.read_output(gpu, 0)?, &a, &b, tolerance)?;

        let mut seconds = vec![];
        for _ in 0..RUNS {
            check()?;
            seconds.push(time(gpu, &executable)?);
        }
        seconds.sort_by(f64::total_cmp);
        let rate = flops / seconds[RUNS / 2];
        Ok(GemmTiming {
            size: n,
            precision: if dtype == DType::F16 { "f16" } else { "f32" },
            kernel: launched.map_or(String::new(), |kernel| kernel.label()),
            choice,
            seconds,
            flops_per_second: rate,
            share: rate / ceilings.flops(matrices),
            ceiling: if matrices { "matrices" } else { "f32" },
        })
    }
}

/// Seconds of a run on the device: by its timestamps where it has them, else by the clock on the wall.
fn time(gpu: &Gpu, executable: &Executable) -> Result<f64> {
    let started = Instant::now();
    let stamped = match executable.run_timed(gpu) {
        Ok(kernels) => Some(kernels.iter().map(|k| k.seconds).sum::<f64>()),
        Err(e) if e.kind() == Kind::Unsupported => {
            executable.run(gpu);
            None
        }
        Err(e) => return Err(e),
    };
    gpu.wait()?;
    let wall = started.elapsed().as_secs_f64();
    Ok(stamped.filter(|&s| s > 0.0 && s <= wall).unwrap_or(wall))
}

/// Compares some entries with the product on the host in f64.
fn compare(gpu: &Gpu, y: &HostTensor, a: &HostTensor, b: &HostTensor, tolerance: f64) -> Result<()> {
    let n = a.shape().last();
    let stream = Stream::named(2, "gemm/entries");
    for entry in 0..CHECKED {
        let [i, j] = stream.words([entry as u32, 0]).map(|word| word as usize % n);
        let terms = || (0..n).map(|k| f64::from(a.data()[i * n + k]) * f64::from(b.data()[k * n + j]));
        let (want, size) = (terms().sum::<f64>(), terms().map(|t| t * t).sum::<f64>().sqrt());
        let got = f64::from(y.data()[i * n + j]);
        let error = (got - want).abs();
        if error.is_nan() || error > tolerance * size.max(1e-30) {
            let message = format!("entry ({i}, {j}) of a matrix product is {got}, not {want}");
            return Err(Error::new(Kind::SelfTest, message)
                .at(&gpu.adapter().name)
                .next("do not trust this driver: run `lesion-gpu doctor conv2d`"));
        }
    }
    Ok(())
}
