//! Batches, assembled ahead of the training loop by background threads.

use std::collections::BTreeMap;
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
    /// The dataset index of each row; shape `[batch]`.
    pub samples: Vec<u32>,
    /// What keys the random numbers of each row in an epoch; shape `[batch]`. See [`Visit::key`].
    pub keys: Vec<u32>,
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
        Self { pixels, labels: vec![0; rows], samples: vec![0; rows], keys: vec![0; rows], valid: pictures.len() }
    }

    /// Assembles a batch of `rows` rows from the samples of `store` that are visited, padding with zeros.
    ///
    /// # Errors
    /// As [`PixelStore::read`]; [`Kind::Internal`] for an index without a label.
    pub fn assemble(store: &PixelStore, labels: &[u32], visits: &[Visit], rows: usize) -> Result<Self> {
        let (area, channels) = (store.size().area(), store.channels());
        let mut pixels = Vec::with_capacity(rows * area);
        let mut picture = vec![0; area * channels];
        let mut row_labels = Vec::with_capacity(rows);
        for &Visit { sample: index, .. } in visits {
            store.read(index, &mut picture)?;
            let alpha = |p: &[u8]| p.get(3).copied().unwrap_or(255);
            pixels.extend(picture.chunks_exact(channels).map(|p| u32::from_le_bytes([p[0], p[1], p[2], alpha(p)])));
            row_labels.push(*labels.get(index).ok_or_else(|| no_sample(index, labels.len()))?);
        }
        pixels.resize(rows * area, 0);
        Ok(Self::of_visits(pixels, row_labels, visits, rows))
    }

    /// A batch of `rows` rows from what was read for `visits`: all pixels, or what stands for them, and a label each.
    pub fn of_visits(pixels: Vec<u32>, mut labels: Vec<u32>, visits: &[Visit], rows: usize) -> Self {
        let mut samples: Vec<u32> = visits.iter().map(|visit| visit.sample as u32).collect();
        let mut keys: Vec<u32> = visits.iter().map(|visit| visit.key()).collect();
        for column in [&mut labels, &mut samples, &mut keys] {
            column.resize(rows, 0);
        }
        Self { pixels, labels, samples, keys, valid: visits.len() }
    }
}

/// A sample's turn in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// The dataset index.
    pub sample: usize,
    /// How often the epoch has visited it before.
    pub again: u32,
}

impl Visit {
    /// What keys its random numbers, besides the epoch: the sample, and from the second visit on the visit too, so that a
    /// picture that is repeated is not repeated with the same changes.
    pub fn key(self) -> u32 {
        self.sample as u32 ^ self.again << 24
    }
}

impl From<usize> for Visit {
    /// The first visit of a sample.
    fn from(sample: usize) -> Self {
        Self { sample, again: 0 }
    }
}

fn no_sample(index: usize, count: usize) -> Error {
    Error::new(Kind::Internal, format!("sample {index} asked for where there are {count}"))
}

/// The order in which an epoch visits `indices`: a permutation that depends on `(seed, epoch)` alone, or as given.
pub fn epoch_order(indices: &[usize], seed: u32, epoch: u32, shuffle: bool) -> Vec<Visit> {
    if !shuffle {
        return indices.iter().copied().map(Visit::from).collect();
    }
    let order = Stream::named(seed, "epoch order").permutation(indices.len(), epoch);
    order.into_iter().map(|i| indices[i].into()).collect()
}

/// An order of as many visits, in which each class among `labels` (of all samples) has as many as any other: those of a
/// frequent class visit some of its samples, those of a rare one go round several times. It depends on `(seed, epoch)`
/// alone.
pub fn balanced_order(indices: &[usize], labels: &[u32], seed: u32, epoch: u32) -> Vec<Visit> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &index in indices {
        classes.entry(labels.get(index).copied().unwrap_or_default()).or_default().push(index);
    }
    let count = classes.len().max(1);
    let mut visits = Vec::with_capacity(indices.len());
    for (place, (label, members)) in classes.into_iter().enumerate() {
        let stream = Stream::named(seed, &format!("balanced order {label}"));
        // What does not divide evenly goes to other classes in each epoch.
        let turn = (place + epoch as usize) % count;
        let wanted = indices.len() / count + usize::from(turn < indices.len() % count);
        let rounds = (0..wanted.div_ceil(members.len()) as u32).flat_map(|again| {
            let order = stream.permutation(members.len(), epoch.wrapping_mul(1 << 16).wrapping_add(again));
            order.into_iter().map(move |i| (i, again)).collect::<Vec<_>>()
        });
        visits.extend(rounds.take(wanted).map(|(i, again)| Visit { sample: members[i], again }));
    }
    let order = Stream::named(seed, "epoch order").permutation(visits.len(), epoch);
    order.into_iter().map(|i| visits[i]).collect()
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
    /// Starts loading the samples of `store` in `order`, with `labels` of shape `[samples]`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if an option is 0; [`Kind::Internal`] if `order` names a sample that does not exist.
    pub fn new(
        store: Arc<PixelStore>,
        labels: impl Into<Arc<[u32]>>,
        order: impl IntoIterator<Item = impl Into<Visit>>,
        options: LoaderOptions,
    ) -> Result<Self> {
        let LoaderOptions { batch, workers, prefetch, last } = options;
        if batch == 0 || workers == 0 || prefetch == 0 {
            return Err(Error::new(Kind::Usage, "batch size, loader workers and prefetch must be at least 1"));
        }
        let labels = labels.into();
        let count = store.len().min(labels.len());
        let order: Vec<Visit> = order.into_iter().map(Into::into).collect();
        if let Some(visit) = order.iter().find(|visit| visit.sample >= count) {
            return Err(no_sample(visit.sample, count));
        }
        let batches = match last {
            LastBatch::Drop => order.len() / batch,
            LastBatch::Pad => order.len().div_ceil(batch),
        };
        let order: Arc<[Visit]> = order.into();
        let mut loader = Self { receivers: Vec::new(), workers: Vec::new(), next: 0, batches };
        let workers = workers.min(batches);
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(prefetch);
            let (store, labels, order) = (store.clone(), labels.clone(), order.clone());
            let work = move || {
                let mine = order.chunks(batch).take(batches).skip(worker).step_by(workers);
                produce(mine.map(|visits| Batch::assemble(&store, &labels, visits, batch)), &sender);
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
