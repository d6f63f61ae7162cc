//! Cached features: where the backbone is frozen and pictures do not change from epoch to epoch, the backbone computes what
//! the head reads once for each picture, and training goes on from there.

use std::collections::HashMap;
use std::sync::Arc;

use super::session::EvalSession;
use crate::data::{Batch, LastBatch, Visit};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::tensor::TensorType;

/// Features take at most this much of the host's memory; else they are computed anew in each step.
pub(super) const MOST: u64 = 1 << 30;

/// The features of some samples, in host memory.
#[derive(Debug)]
pub(super) struct Features {
    /// A row for each sample, one behind the other: the bits of f32.
    rows: Vec<u32>,
    width: usize,
    /// The row of each sample.
    row_of: HashMap<usize, usize>,
}

impl Features {
    /// Bytes of the features, each of the type `ty`, of `samples` samples.
    pub fn bytes(ty: &TensorType, samples: usize) -> u64 {
        let row = ty.shape.len() / ty.shape.dims().first().copied().unwrap_or(1).max(1);
        4 * row as u64 * samples as u64
    }

    /// Runs the backbone over `batches`, which hold `samples` in order.
    ///
    /// # Errors
    /// Those of the batches and of `progress`; device errors.
    pub fn compute(
        gpu: &Gpu,
        backbone: &mut EvalSession,
        samples: &[usize],
        batches: impl IntoIterator<Item = Result<Batch>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let mut rows = vec![];
        backbone.each_picture(gpu, batches, progress, &mut |_, features| {
            rows.extend(features.iter().map(|v| v.to_bits()));
            Ok(())
        })?;
        let width = rows.len() / samples.len().max(1);
        Ok(Self { rows, width, row_of: samples.iter().enumerate().map(|(row, &sample)| (sample, row)).collect() })
    }

    /// The batches of an epoch that visits `order`: as a loader makes them, with features for pixels.
    pub fn batches(
        self: Arc<Self>,
        labels: Arc<[u32]>,
        order: Vec<Visit>,
        batch: usize,
        last: LastBatch,
    ) -> impl Iterator<Item = Result<Batch>> {
        let count = match last {
            LastBatch::Drop => order.len() / batch,
            LastBatch::Pad => order.len().div_ceil(batch),
        };
        (0..count).map(move |i| {
            let visits = &order[i * batch..order.len().min((i + 1) * batch)];
            self.batch(&labels, visits, batch)
        })
    }

    fn batch(&self, labels: &[u32], visits: &[Visit], rows: usize) -> Result<Batch> {
        let missing = |sample| Error::new(Kind::Internal, format!("there are no features of sample {sample}"));
        let mut pixels = Vec::with_capacity(rows * self.width);
        let mut row_labels = vec![];
        for &Visit { sample, .. } in visits {
            let row = *self.row_of.get(&sample).ok_or_else(|| missing(sample))?;
            pixels.extend_from_slice(&self.rows[row * self.width..(row + 1) * self.width]);
            row_labels.push(*labels.get(sample).ok_or_else(|| missing(sample))?);
        }
        pixels.resize(rows * self.width, 0);
        Ok(Batch::of_visits(pixels, row_labels, visits, rows))
    }
}
