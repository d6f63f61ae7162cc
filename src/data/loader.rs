//! Batches, assembled ahead of the training loop by background threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use image::RgbImage;

use super::size::ImageSize;
use super::store::PixelStore;
use crate::error::{Error, Kind, Result};
use crate::rng::Stream;

/// What becomes of the samples that do not fill a last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// They are left out (of this epoch; another shuffle leaves out others).
    Drop,
    /// The batch is filled up with rows of zeros, which [`Batch::valid`] tells apart.
    Pad,
}

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Rows a batch, at least 1.
    pub batch: usize,
    /// Background threads, at least 1.
    pub workers: usize,
    /// Batches each worker prepares ahead, at least 1. Memory: about `workers * (prefetch + 1)` batches.
    pub prefetch: usize,
    /// What becomes of an incomplete last batch.
    pub last: LastBatch,
}

/// One batch in host memory, laid out for upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// RGBA8 in one word a pixel, red in the low byte, shape `[batch, height, width]`. Alpha is the mask (255 inside, 0
    /// outside), where the store has masks, else 255.
    pub pixels: Vec<u32>,
    /// Class indices, shape `[batch]`.
    pub labels: Vec<u32>,
    /// The dataset index of each row, which keys its random numbers; shape `[batch]`.
    pub samples: Vec<u32>,
    /// How many rows are real; the rows behind them are all zeros.
    pub valid: usize,
}

impl Batch {
    /// A batch of `rows` rows from pictures of `size`, without labels or masks, padding with zeros.
    pub fn of_pictures(pictures: &[RgbImage], size: ImageSize, rows: usize) -> Self {
        let mut pixels = Vec::with_capacity(rows * size.area());
        for picture in pictures {
            pixels.extend(picture.pixels().map(|p| u32::from_le_bytes([p[0], p[1], p[2], 255])));
        }
        pixels.resize(rows * size.area(), 0);
        Self { pixels, labels: vec![0; rows], samples: vec![0; rows], valid: pictures.len() }
    }

    /// Assembles a batch of `rows` rows from the samples `indices` of `store`, padding with zeros.
    ///
    /// # Errors
    /// As [`PixelStore::read`]; [`Kind::Internal`] for an index without a label.
    pub fn assemble(store: &PixelStore, labels: &[u32], indices: &[usize], rows: usize) -> Result<Self> {
        let (area, channels) = (store.size().area(), store.channels());
        let mut pixels = Vec::with_capacity(rows * area);
        let mut picture = vec![0; area * channels];
        let mut row_labels = Vec::with_capacity(rows);
        for &index in indices {
            store.read(index, &mut picture)?;
            let alpha = |p: &[u8]| p.get(3).copied().unwrap_or(255);
            pixels.extend(picture.chunks_exact(channels).map(|p| u32::from_le_bytes([p[0], p[1], p[2], alpha(p)])));
            row_labels.push(*labels.get(index).ok_or_else(|| no_sample(index, labels.len()))?);
        }
        let mut samples: Vec<u32> = indices.iter().map(|&i| i as u32).collect();
        pixels.resize(rows * area, 0);
        row_labels.resize(rows, 0);
        samples.resize(rows, 0);
        Ok(Self { pixels, labels: row_labels, samples, valid: indices.len() })
    }
}

fn no_sample(index: usize, count: usize) -> Error {
    Error::new(Kind::Internal, format!("sample {index} asked for where there are {count}"))
}

/// The order in which an epoch visits `indices`: a permutation that depends on `(seed, epoch)` alone, or as given.
pub fn epoch_order(indices: &[usize], seed: u32, epoch: u32, shuffle: bool) -> Vec<usize> {
    if !shuffle {
        return indices.to_vec();
    }
    let order = Stream::named(seed, "epoch order").permutation(indices.len(), epoch);
    order.into_iter().map(|i| indices[i]).collect()
}

/// An iterator over the batches of one epoch, in order, assembled ahead by background threads.
///
/// Worker `w` of `n` makes the batches `w, w + n, w + 2n, ...` into a bounded channel of its own, and the consumer
/// takes from the channels in turn: so the order needs no sorting and memory is bounded. Dropping the loader stops and
/// joins the workers. After an error the iterator ends.
#[derive(Debug)]
pub struct Loader {
    receivers: Vec<Receiver<Result<Batch>>>,
    workers: Vec<JoinHandle<()>>,
    next: usize,
    batches: usize,
}

impl Loader {
    /// Starts loading the samples `order` of `store`, with `labels` of shape `[samples]`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if an option is 0; [`Kind::Internal`] if `order` names a sample that does not exist.
    pub fn new(
        store: Arc<PixelStore>,
        labels: impl Into<Arc<[u32]>>,
        order: Vec<usize>,
        options: LoaderOptions,
    ) -> Result<Self> {
        let LoaderOptions { batch, workers, prefetch, last } = options;
        if batch == 0 || workers == 0 || prefetch == 0 {
            return Err(Error::new(Kind::Usage, "batch size, loader workers and prefetch must be at least 1"));
        }
        let labels = labels.into();
        let count = store.len().min(labels.len());
        if let Some(&index) = order.iter().find(|&&i| i >= count) {
            return Err(no_sample(index, count));
        }
        let batches = match last {
            LastBatch::Drop => order.len() / batch,
            LastBatch::Pad => order.len().div_ceil(batch),
        };
        let order: Arc<[usize]> = order.into();
        let mut loader = Self { receivers: Vec::new(), workers: Vec::new(), next: 0, batches };
        let workers = workers.min(batches);
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(prefetch);
            let (store, labels, order) = (store.clone(), labels.clone(), order.clone());
            let work = move || {
                let mine = order.chunks(batch).take(batches).skip(worker).step_by(workers);
                produce(mine.map(|indices| Batch::assemble(&store, &labels, indices, batch)), &sender);
            };
            let spawned = std::thread::Builder::new().name(format!("loader-{worker}")).spawn(work);
            // An early return drops the loader, which ends the threads already started.
            let handle =
                spawned.map_err(|e| Error::new(Kind::OutOfMemory, format!("no thread for the loader: {e}")))?;
            loader.receivers.push(receiver);
            loader.workers.push(handle);
        }
        Ok(loader)
    }

    /// How many batches the epoch has.
    pub fn batches(&self) -> usize {
        self.batches
    }
}

/// Sends batches until the first error or until nobody listens.
fn produce(batches: impl Iterator<Item = Result<Batch>>, sender: &SyncSender<Result<Batch>>) {
    for batch in batches {
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.batches {
            return None;
        }
        let received = self.receivers[self.next % self.receivers.len()].recv();
        self.next += 1;
        // A closed channel with batches outstanding means that the worker panicked.
        let batch = received.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a loader thread ended early")));
        if batch.is_err() {
            self.next = self.batches;
        }
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channels ends workers that wait to send.
        self.receivers.clear();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so on standard error; there is nobody left to tell.
            let _ = worker.join();
        }
    }
}
