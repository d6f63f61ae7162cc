//! Times a training step: `cargo bench --bench train_step -- --model resnet18 --batch 8 --size 128`.
//!
//! Prints the step time (median, fastest, slowest), images/s, GFLOP/s and the share of each kernel. FLOPs are those
//! each launch states: twice the multiply-adds of the convolutions, and the small change of the other kernels.

use std::collections::BTreeMap;
use std::time::Instant;

use clap::Parser;
use lesion_gpu::autograd::Store;
use lesion_gpu::data::Batch;
use lesion_gpu::gpu::{Gpu, GpuOptions};
use lesion_gpu::models::Model;
use lesion_gpu::rng::Stream;
use lesion_gpu::train::{TrainConfig, TrainGraph, TrainSession};

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "resnet18")]
    model: String,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Timed steps
    #[arg(long, default_value_t = 7)]
    steps: usize,
    /// GPU by index or part of its name
    #[arg(long, env = "LESION_GPU_ADAPTER")]
    adapter: Option<String>,
    /// Lines of the kernel table
    #[arg(long, default_value_t = 25)]
    top: usize,
    /// Split the table by layer
    #[arg(long)]
    layers: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let gpu = Gpu::open(&GpuOptions { adapter: options.adapter.clone(), ..GpuOptions::default() })?;
    let Options { batch, size, .. } = options;
    let config = TrainConfig { model: options.model.clone(), batch, size, ..TrainConfig::default() };
    let classes = 7;
    let built = Instant::now();
    let graph = TrainGraph::new(Model::find(&options.model)?, &config, batch, classes, gpu.caps())?;
    let memory = graph.plan.memory;
    let launches = graph.plan.dispatches.len();
    let flops: u64 = graph.plan.dispatches.iter().map(|d| d.dispatch.work.flops).sum();
    let mut store = Store::new();
    let mut session = TrainSession::new(&gpu, graph, classes, &vec![1.0; classes], &mut store)?;
    for p in session.parameters() {
        store.write(&gpu, &p.name, &p.to_device(&p.initial(1)))?;
    }
    let stream = Stream::new(1, 2);
    let images = Batch {
        pixels: (0..(batch * size * size) as u32).map(|i| stream.words([i, 0])[0]).collect(),
        labels: (0..batch as u32).map(|i| i % classes as u32).collect(),
        samples: (0..batch as u32).collect(),
        valid: batch,
    };
    let mut step = |n: u64| -> lesion_gpu::Result<f64> {
        let started = Instant::now();
        session.step(&gpu, &images, n, 0, 1e-3)?;
        gpu.wait()?;
        while session.collect(&gpu)?.is_some() {}
        Ok(started.elapsed().as_secs_f64())
    };
    step(0)?;
    let ready = built.elapsed().as_secs_f64();
    let mut times = (0..options.steps.max(1) as u64).map(|n| step(n + 1)).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    let (median, fastest, slowest) = (times[times.len() / 2], times[0], times[times.len() - 1]);
    let adapter = gpu.adapter();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("device     {} ({}, {})", adapter.name, adapter.class.name(), adapter.driver);
    println!("work       {} training step, batch {batch}, {size}x{size}, f32", options.model);
    println!("launches   {launches}; ready after {ready:.1} s (tracing, pipelines, first step)");
    println!("memory     {:.1} MiB ({:.1} MiB without reuse)", mib(memory.total()), mib(memory.without_reuse));
    println!(
        "step       {:.1} ms median of {}, {:.1} to {:.1}",
        median * 1e3,
        times.len(),
        fastest * 1e3,
        slowest * 1e3
    );
    println!("speed      {:.1} images/s, {:.2} GFLOP/s", batch as f64 / median, flops as f64 / median / 1e9);

    let profile = match session.executable().run_timed(&gpu) {
        Ok(profile) => profile,
        Err(e) => {
            println!("no kernel table: {e}");
            return Ok(());
        }
    };
    let total: f64 = profile.iter().map(|k| k.seconds).sum();
    let mut by_kernel: BTreeMap<String, (f64, u64, usize)> = BTreeMap::new();
    for k in &profile {
        let layer = if options.layers { format!(" {}", k.scope) } else { String::new() };
        let entry = by_kernel.entry(format!("{} [{}]{layer}", k.op, k.kernel)).or_default();
        *entry = (entry.0 + k.seconds, entry.1 + k.work.flops, entry.2 + 1);
    }
    let mut rows: Vec<_> = by_kernel.into_iter().collect();
    rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    println!("\nkernels, {:.1} ms in all\n   share        ms  launches   GFLOP/s  op [kernel]", total * 1e3);
    for (name, (seconds, flops, count)) in rows.into_iter().take(options.top) {
        let (share, rate) = (100.0 * seconds / total, flops as f64 / seconds.max(1e-12) / 1e9);
        println!("{share:7.1}% {:9.2} {count:9} {rate:9.2}  {name}", seconds * 1e3);
    }
    Ok(())
}
