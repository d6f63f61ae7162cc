//! Per-kernel GPU times from timestamp queries.

use super::{Gpu, Recorded, Usage};
use crate::error::{Error, Kind, Result};

/// Timestamp queries in one set: WebGPU's limit.
const QUERIES: usize = 4096;

/// How long one dispatch took on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTime {
    /// Position in the recorded sequence.
    pub index: usize,
    /// Seconds between the beginning and the end of its pass.
    pub seconds: f64,
}

impl Gpu {
    /// Runs a recorded sequence with every dispatch in a pass of its own between two timestamps. Slower as a whole
    /// than [`submit`](Self::submit); the times are those of the kernels, with the copies to textures that they need.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] without timestamps, and as [`check`](Self::check).
    pub fn submit_timed(&self, recorded: &[Recorded]) -> Result<Vec<KernelTime>> {
        if !self.timestamps {
            return Err(Error::new(Kind::Unsupported, "this adapter has no timestamp queries")
                .at(&self.adapter().name)
                .next("leave out the request for per-kernel times"));
        }
        let per_chunk = QUERIES / 2;
        let set = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("kernel times"),
            ty: wgpu::QueryType::Timestamp,
            count: QUERIES as u32,
        });
        let bytes = QUERIES as u64 * 8;
        let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernel times"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let staging = self.allocate("kernel times", bytes, Usage::Readback)?;
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let mut times = Vec::with_capacity(recorded.len());
        for chunk in recorded.chunks(per_chunk) {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (i, item) in chunk.iter().enumerate() {
                let stamps = |begin: Option<usize>, end: Option<usize>| wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &set,
                        beginning_of_pass_write_index: begin.map(|i| i as u32),
                        end_of_pass_write_index: end.map(|i| i as u32),
                    }),
                };
                let (begin, end) = (2 * i, 2 * i + 1);
                if !item.copies.is_empty() {
                    // A pass of nothing, for the time before the copies.
                    drop(encoder.begin_compute_pass(&stamps(Some(begin), None)));
                    item.copies.iter().for_each(|copy| copy.encode(&mut encoder));
                }
                let begin = item.copies.is_empty().then_some(begin);
                item.encode(&mut encoder.begin_compute_pass(&stamps(begin, Some(end))));
            }
            encoder.resolve_query_set(&set, 0..2 * chunk.len() as u32, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging.inner, 0, bytes);
            self.send(encoder.finish());
            let (sender, done) = std::sync::mpsc::channel();
            staging.inner.map_async(wgpu::MapMode::Read, 0..bytes, move |r| {
                let _ = sender.send(r);
            });
            self.wait()?;
            let mapped = done.recv().map_err(|_| Error::new(Kind::Internal, "timestamps were not mapped"))?;
            mapped.map_err(|e| self.lost(&e.to_string()))?;
            let view = staging.inner.get_mapped_range(0..bytes);
            let view = view.map_err(|e| Error::new(Kind::Internal, format!("could not read timestamps: {e}")))?;
            let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
            for i in 0..chunk.len() {
                let ticks = stamps[2 * i + 1].saturating_sub(stamps[2 * i]);
                times.push(KernelTime { index: times.len(), seconds: ticks as f64 * period });
            }
            drop(view);
            staging.inner.unmap();
        }
        Ok(times)
    }
}
