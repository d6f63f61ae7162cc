//! The ceilings of a device, measured: multiply-adds a second in registers, bytes a second through memory.
//!
//! Vendors' data sheets give peaks that no program reaches, and a software driver has no data sheet. A kernel's share
//! of what the same device does in the simplest kernel there is says how much could still be gained (S. Williams, A.
//! Waterman, D. Patterson, "Roofline: an insightful visual performance model", CACM 2009).
//!
//! * **ALU** (`probe_alu.wgsl`): independent chains of `c = c * factor + addend`; f32, and f16 where the device has it.
//!   The best of several numbers of chains counts, each with and without `fma`.
//! * **Matrices** (`probe_matrices.wgsl`): independent chains of products of cooperative matrices, f16 factors and f32 sums,
//!   where the device has them and they were proven.
//! * **Copy** (`probe_copy.wgsl`): a buffer far larger than caches copied to another, four words at a time. The bytes
//!   read and the bytes written both count.
//!
//! Every probe's result is compared with what it must be, so that no compiler can have left the work out unnoticed.
//! A launch is kept to some ten milliseconds, far below what makes a desktop reset its GPU.

use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Operand};
use crate::gpu::{
    Buffer, Caps, DeviceClass, Dispatch, Gpu, Kernel, Recorded, Source, Textures, Uniform, Usage, grid, grid_for,
    load_probes, uniform_block,
};

static ALU: Source = crate::wgsl!("probe_alu.wgsl");
static MATRICES: Source = crate::wgsl!("probe_matrices.wgsl");
static COPY: Source = crate::wgsl!("probe_copy.wgsl");

uniform_block! {
    /// Mirrors `Params` of `probe_alu.wgsl`.
    struct AluParams { count: u32, rounds: u32 }
}

uniform_block! {
    /// Mirrors `Params` of `probe_matrices.wgsl`.
    struct MatrixParams { rounds: u32 }
}

uniform_block! {
    /// Mirrors `Params` of `probe_copy.wgsl`.
    struct CopyParams { count: u32, stride: u32, seed: u32 }
}

/// `WG` of `probe_alu.wgsl`.
const ALU_WORKGROUP: u32 = 128;
/// `WG` of `probe_copy.wgsl`.
const COPY_WORKGROUP: u32 = 256;

/// A launch should take about this long: long against the cost of submitting, short against what else the machine does.
const LAUNCH_SECONDS: f64 = 0.01;
/// Measured launches of a variant, of which the fastest counts.
const LAUNCHES: usize = 8;

/// What a device does at best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// 32-bit floating-point operations a second; a multiply-add is two.
    pub f32_flops: f64,
    /// 16-bit ones, where the device has them.
    pub f16_flops: Option<f64>,
    /// Those of cooperative matrices with f16 factors and f32 sums, where the device has proven ones.
    pub matrices_flops: Option<f64>,
    /// Bytes a second, read and written, of a copy.
    pub copy_bytes: f64,
    /// Size in bytes of the buffer that was copied.
    pub copy_buffer: u64,
}

impl Ceilings {
    /// Measures them, in some seconds. `check` is called between launches and may end it.
    ///
    /// # Errors
    /// [`Kind::SelfTest`] if a probe's result is wrong, [`Kind::OutOfMemory`] if there is not even room for a small
    /// copy; those of `check`; device errors.
    pub fn measure(gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<Self> {
        let best = |half: bool| -> Result<f64> {
            let mut best: f64 = 0.0;
            for probe in AluProbe::variants(half) {
                check()?;
                best = best.max(probe.measure(gpu, check)?);
            }
            Ok(best)
        };
        let f32_flops = best(false)?;
        let f16_flops = if gpu.caps().f16 { Some(best(true)?) } else { None };
        let mut matrices_flops: Option<f64> = None;
        for probe in MatrixProbe::variants(gpu.caps()) {
            check()?;
            matrices_flops = Some(matrices_flops.unwrap_or(0.0).max(probe.measure(gpu, check)?));
        }
        check()?;
        let (copy_bytes, copy_buffer) = measure_copy(gpu, check)?;
        Ok(Self { f32_flops, f16_flops, matrices_flops, copy_bytes, copy_buffer })
    }

    /// The ceiling of products: by cooperative matrices, or, with f32 sums, in f32.
    pub fn flops(&self, matrices: bool) -> f64 {
        self.matrices_flops.filter(|_| matrices).unwrap_or(self.f32_flops)
    }

    /// The least time in seconds that `flops` operations, by `matrices` or not, and `bytes` of traffic take, each at its
    /// ceiling.
    pub fn least_seconds(&self, flops: f64, matrices: bool, bytes: f64) -> f64 {
        (flops / self.flops(matrices)).max(bytes / self.copy_bytes)
    }
}

/// Every launch the probes may make on a device: for validating their shaders.
pub fn probe_dispatches(caps: &Caps) -> Vec<Dispatch> {
    let halves: &[bool] = if caps.f16 { &[false, true] } else { &[false] };
    let alu = halves.iter().flat_map(|&half| AluProbe::variants(half)).map(|probe| probe.dispatch(1024, 1));
    let matrices = MatrixProbe::variants(caps).map(|probe| probe.dispatch(4, 1));
    let copy = CopyProbe::EACH.into_iter().map(|each| CopyProbe { vectors: 1 << 12, each });
    let copy = copy.flat_map(|probe| [probe.fill(1), probe.copy(), probe.sample(64)]);
    alu.chain(matrices).chain(copy).chain(load_probes().into_iter().flatten()).collect()
}

/// Seconds on the device of recorded launches: by its timestamps where it has them, else by the clock on the wall.
fn seconds(gpu: &Gpu, recorded: &[Recorded]) -> Result<f64> {
    let started = Instant::now();
    let stamped = match gpu.submit_timed(recorded) {
        Ok(times) => Some(times.iter().map(|t| t.seconds).sum::<f64>()),
        Err(e) if e.kind() == Kind::Unsupported => {
            gpu.submit(recorded);
            None
        }
        Err(e) => return Err(e),
    };
    gpu.wait()?;
    let wall = started.elapsed().as_secs_f64();
    // A driver whose timestamps stand still, or run ahead of the wall, is not believed.
    Ok(stamped.filter(|&s| s > 0.0 && s <= wall).unwrap_or(wall))
}

fn wrong(gpu: &Gpu, what: &str) -> Error {
    Error::new(Kind::SelfTest, format!("the {what} probe computed a wrong result"))
        .at(&gpu.adapter().name)
        .next("do not trust this driver: run `lesion-gpu doctor`")
}

/// A variant of the ALU probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AluProbe {
    /// In f16 instead of f32.
    pub half: bool,
    /// Chains of an invocation, divided by four.
    pub vectors: u32,
    /// Multiply-adds of a chain in a round: odd, so that an odd number of rounds with the factor -1 leaves a trace.
    pub steps: u32,
    /// With `fma` instead of a product and a sum, which a driver may fuse or not.
    pub fused: bool,
}

impl AluProbe {
    /// All variants of a precision.
    pub fn variants(half: bool) -> impl Iterator<Item = Self> {
        let shape = [1, 2, 4, 8].into_iter().flat_map(|vectors| [(vectors, true), (vectors, false)]);
        shape.map(move |(vectors, fused)| Self { half, vectors, steps: (60 / vectors) | 1, fused })
    }

    fn dispatch(self, count: u32, rounds: u32) -> Dispatch {
        let kernel = Kernel::new(&ALU, "chains")
            .with_u32("VECTORS", self.vectors)
            .with_u32("STEPS", self.steps)
            .with_bool("FUSED", self.fused)
            .with_half(self.half);
        let params = AluParams { count, rounds };
        let dispatch = Dispatch::new(kernel, params.block(), grid_for(count as usize, ALU_WORKGROUP));
        let steps = u64::from(count) * u64::from(self.vectors * 4 * self.steps) * u64::from(rounds);
        dispatch.input(0).input(1).output(0).work(2 * steps, 8 * u64::from(count))
    }

    /// Runs the probe: the sum of all chains of each element of `x` after `rounds` rounds, with the seconds it took.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`], [`Kind::Shader`]; device errors.
    pub fn run(self, gpu: &Gpu, x: &[f32], factor: f32, addend: f32, rounds: u32) -> Result<(Vec<f32>, f64)> {
        let (input, output) = buffers(gpu, 4 * x.len() as u64)?;
        gpu.upload(&input, bytemuck::cast_slice(x));
        let coefficients = gpu.allocate("probe coefficients", 8, Usage::Storage)?;
        gpu.upload(&coefficients, bytemuck::cast_slice(&[factor, addend]));
        let recorded = gpu.record(
            &self.dispatch(x.len() as u32, rounds),
            &[&input, &coefficients, &output],
            &Textures::default(),
        )?;
        let seconds = seconds(gpu, &[recorded])?;
        Ok((bytemuck::pod_collect_to_vec(&gpu.download(&output)?), seconds))
    }

    /// What [`run`](Self::run) must compute, on the host in f64.
    pub fn expected(self, x: &[f32], factor: f32, addend: f32, rounds: u32) -> Vec<f64> {
        let chain =
            |start: f64| (0..rounds * self.steps).fold(start, |c, _| c.mul_add(f64::from(factor), f64::from(addend)));
        x.iter().map(|&x| (0..4 * self.vectors).map(|j| chain(f64::from(x) + f64::from(j))).sum()).collect()
    }

    /// The rate in operations a second, of the fastest of some launches.
    ///
    /// # Errors
    /// [`Kind::SelfTest`] if a result is wrong; those of `check`; device errors.
    pub fn measure(self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<f64> {
        // Enough for the largest GPU; a CPU has fewer lanes and is kept busy with fewer.
        let count: u32 = if gpu.adapter().class == DeviceClass::Software { 1 << 14 } else { 1 << 19 };
        // With whole numbers below 16, the factor -1 and the addend 24 all values stay whole and small: exact in f16.
        let (factor, addend) = (-1.0, 24.0);
        let x: Vec<f32> = (0..count).map(|i| (i % 16) as f32).collect();
        // The chains alternate between two values, so one round tells what any odd number of rounds must give.
        let expected: Vec<f64> = self.expected(&x[..16], factor, addend, 1);
        let mut rounds = 1;
        let (mut best, mut measured) = (0.0, 0);
        while measured < LAUNCHES {
            check()?;
            let (y, seconds) = self.run(gpu, &x, factor, addend, rounds)?;
            if y.iter().enumerate().any(|(i, &y)| f64::from(y) != expected[i % 16]) {
                return Err(wrong(gpu, if self.half { "f16" } else { "f32" }));
            }
            if seconds < LAUNCH_SECONDS / 2.0 && rounds < 1 << 20 {
                let longer = (LAUNCH_SECONDS / seconds.max(1e-9)).clamp(2.0, 64.0);
                rounds = (f64::from(rounds) * longer) as u32 | 1;
                continue;
            }
            best = f64::max(best, self.dispatch(count, rounds).work.flops as f64 / seconds);
            measured += 1;
        }
        Ok(best)
    }
}

/// A variant of the matrix probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixProbe {
    /// Side of a matrix.
    pub side: u32,
    /// Lanes of a subgroup.
    pub lanes: u32,
    /// Sums of a subgroup.
    pub chains: u32,
}

impl MatrixProbe {
    /// Products of a chain in a round.
    const STEPS: u32 = 16;
    /// `SUBGROUPS` of the shader.
    const SUBGROUPS: u32 = 4;

    /// All variants for a device: none where it has no proven matrices.
    pub fn variants(caps: &Caps) -> impl Iterator<Item = Self> + use<> {
        let lanes = caps.subgroups.filter(|s| s.min == s.max).map(|s| s.min);
        let known = caps.matrices.zip(lanes).filter(|(_, lanes)| Self::SUBGROUPS * lanes <= caps.max_invocations);
        let each = [1, 2, 4, 8].into_iter();
        each.filter_map(move |chains| known.map(|(side, lanes)| Self { side, lanes, chains }))
    }

    fn dispatch(self, workgroups: u32, rounds: u32) -> Dispatch {
        let kernel = Kernel::new(&MATRICES, "products")
            .with_u32("CHAINS", self.chains)
            .with_u32("STEPS", Self::STEPS)
            .with_u32("LANES", self.lanes)
            .with_half(true)
            .with_subgroups()
            .with_matrices(self.side);
        let chains = u64::from(workgroups) * u64::from(Self::SUBGROUPS * self.chains);
        let products = chains * u64::from(Self::STEPS) * u64::from(rounds);
        Dispatch::new(kernel, MatrixParams { rounds }.block(), grid(workgroups.into()))
            .input(0)
            .input(1)
            .output(0)
            .work(2 * products * u64::from(self.side).pow(3), 4 * chains * u64::from(self.side).pow(2))
    }

    /// The factors: small whole numbers that differ by row and column.
    fn factors(self) -> [Vec<f32>; 2] {
        let at = |i: u32| (i / self.side, i % self.side);
        let entries = 0..self.side * self.side;
        let left = entries.clone().map(|i| ((at(i).0 + 2 * at(i).1) % 3) as f32);
        let right = entries.map(|i| ((at(i).0 + at(i).1) % 2) as f32);
        [left.collect(), right.collect()]
    }

    /// One product of the factors, on the host.
    fn product(self) -> Vec<f64> {
        let [left, right] = self.factors();
        let n = self.side as usize;
        let sum = |i: usize| (0..n).map(|k| f64::from(left[i / n * n + k]) * f64::from(right[k * n + i % n])).sum();
        (0..n * n).map(sum).collect()
    }

    /// Runs the probe: all sums, with the seconds it took.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`], [`Kind::Shader`]; device errors.
    pub fn run(self, gpu: &Gpu, workgroups: u32, rounds: u32) -> Result<(Vec<f32>, f64)> {
        let [left, right] = self.factors();
        let load = |data: &[f32]| {
            let buffer = gpu.allocate("probe factor", 4 * data.len() as u64, Usage::Storage)?;
            gpu.upload(&buffer, bytemuck::cast_slice(data));
            Ok(buffer)
        };
        let (left, right) = (load(&left)?, load(&right)?);
        let dispatch = self.dispatch(workgroups, rounds);
        let sums = gpu.allocate("probe output", dispatch.work.bytes, Usage::Storage)?;
        let recorded = gpu.record(&dispatch, &[&left, &right, &sums], &Textures::default())?;
        let seconds = seconds(gpu, &[recorded])?;
        Ok((bytemuck::pod_collect_to_vec(&gpu.download(&sums)?), seconds))
    }

    /// Whether `sums` are what [`run`](Self::run) must compute.
    pub fn agrees(self, sums: &[f32], rounds: u32) -> bool {
        let products = f64::from(rounds * Self::STEPS);
        let want: Vec<f64> = self.product().into_iter().map(|p| products * p).collect();
        sums.iter().zip(want.iter().cycle()).all(|(&got, &want)| f64::from(got) == want)
    }

    /// The rate in operations a second, of the fastest of some launches.
    ///
    /// # Errors
    /// [`Kind::SelfTest`] if a result is wrong; those of `check`; device errors.
    pub fn measure(self, gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<f64> {
        let workgroups = if gpu.adapter().class == DeviceClass::Software { 16 } else { 2048 };
        // Sums stay whole and below 2^24, where f32 is exact: an entry of a product is at most two a term.
        let most = (1 << 24) / (2 * self.side * Self::STEPS);
        let mut rounds = 1;
        let (mut best, mut measured) = (0.0, 0);
        while measured < LAUNCHES {
            check()?;
            let (sums, seconds) = self.run(gpu, workgroups, rounds)?;
            if !self.agrees(&sums, rounds) {
                return Err(wrong(gpu, "matrix"));
            }
            if seconds < LAUNCH_SECONDS / 2.0 && rounds < most {
                let longer = (LAUNCH_SECONDS / seconds.max(1e-9)).clamp(2.0, 64.0);
                rounds = ((f64::from(rounds) * longer) as u32).min(most);
                continue;
            }
            best = f64::max(best, self.dispatch(workgroups, rounds).work.flops as f64 / seconds);
            measured += 1;
        }
        Ok(best)
    }
}

/// A variant of the copy probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProbe {
    /// Vectors of four words copied.
    pub vectors: u32,
    /// Of which an invocation copies this many.
    pub each: u32,
}

impl CopyProbe {
    /// The numbers of vectors an invocation may copy.
    pub const EACH: [u32; 3] = [1, 2, 4];
    /// Bytes of a vector.
    const VECTOR: u64 = 16;

    fn launch(self, entry: &'static str, count: u32, threads: u32, stride: u32, seed: u32) -> Dispatch {
        let kernel = Kernel::new(&COPY, entry).with_u32("EACH", self.each);
        Dispatch::new(kernel, CopyParams { count, stride, seed }.block(), grid_for(threads as usize, COPY_WORKGROUP))
    }

    fn fill(self, seed: u32) -> Dispatch {
        self.launch("fill", self.vectors, self.vectors, 0, seed).output(0)
    }

    fn copy(self) -> Dispatch {
        let threads = self.vectors.div_ceil(self.each);
        let bytes = 2 * Self::VECTOR * u64::from(self.vectors);
        self.launch("copy", self.vectors, threads, 0, 0).input(0).output(0).work(0, bytes)
    }

    fn sample(self, samples: u32) -> Dispatch {
        let stride = (self.vectors / samples).max(1);
        self.launch("sample", samples, samples, stride, 0).bind(Operand::Input(0), Access::Read).output(0)
    }

    /// Fills a buffer by `seed`, copies it to another `launches` times and returns `samples` evenly spaced vectors of
    /// the copy, and the seconds of the fastest launch.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`], [`Kind::Shader`]; device errors.
    pub fn run(self, gpu: &Gpu, seed: u32, samples: u32, launches: usize) -> Result<(Vec<u32>, f64)> {
        let (x, y) = buffers(gpu, Self::VECTOR * u64::from(self.vectors))?;
        let taken = gpu.allocate("probe samples", Self::VECTOR * u64::from(samples), Usage::Storage)?;
        let none = Textures::default();
        gpu.submit(&[gpu.record(&self.fill(seed), &[&x], &none)?]);
        let copy = [gpu.record(&self.copy(), &[&x, &y], &none)?];
        gpu.wait()?;
        let mut fastest = f64::INFINITY;
        for _ in 0..launches {
            fastest = fastest.min(seconds(gpu, &copy)?);
        }
        gpu.submit(&[gpu.record(&self.sample(samples), &[&y, &taken], &none)?]);
        Ok((bytemuck::pod_collect_to_vec(&gpu.download(&taken)?), fastest))
    }

    /// What [`run`](Self::run) must return, computed on the host.
    pub fn expected(self, seed: u32, samples: u32) -> Vec<u32> {
        let stride = (self.vectors / samples).max(1);
        let word = |j: u32| j.wrapping_mul(2_654_435_761).wrapping_add(seed);
        (0..samples).flat_map(|i| (0..4).map(move |k| word(4 * i * stride + k))).collect()
    }
}

fn buffers(gpu: &Gpu, bytes: u64) -> Result<(Buffer, Buffer)> {
    Ok((gpu.allocate("probe input", bytes, Usage::Storage)?, gpu.allocate("probe output", bytes, Usage::Storage)?))
}

/// Largest buffer of the copy probe: several times the largest caches there are.
const COPY_BYTES: u64 = 512 << 20;
/// Below this it would measure a cache.
const MIN_COPY_BYTES: u64 = 16 << 20;

/// Bytes a second of a copy and the size of the buffer; smaller buffers where large ones do not fit.
fn measure_copy(gpu: &Gpu, check: &dyn Fn() -> Result<()>) -> Result<(f64, u64)> {
    let caps = gpu.caps();
    let largest = if caps.class == DeviceClass::Software { COPY_BYTES / 4 } else { COPY_BYTES };
    let mut bytes = largest.min(caps.max_binding).min(caps.max_buffer) / 4096 * 4096;
    let (seed, samples) = (0x9e37, 1 << 12);
    let mut best: Option<f64> = None;
    let mut variants = CopyProbe::EACH.into_iter();
    let mut next = variants.next();
    while let Some(each) = next {
        check()?;
        let probe = CopyProbe { vectors: (bytes / CopyProbe::VECTOR) as u32, each };
        match probe.run(gpu, seed, samples, LAUNCHES) {
            Ok((copied, seconds)) => {
                if copied != probe.expected(seed, samples) {
                    return Err(wrong(gpu, "copy"));
                }
                best = Some(best.unwrap_or(0.0).max(probe.copy().work.bytes as f64 / seconds));
                next = variants.next();
            }
            // Again with half, and from then on.
            Err(e) if e.kind() == Kind::OutOfMemory && bytes >= 2 * MIN_COPY_BYTES => {
                bytes /= 2;
                gpu.poll()?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok((best.unwrap_or(0.0), bytes))
}
