//! Buffers: allocation, upload and reading back.

use std::sync::mpsc;

use super::Gpu;
use super::guard::ZONE;
use crate::error::{Error, Kind, Result};

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Tensors: storage that can be uploaded to and copied from.
    Storage,
    /// The same, of whose contents nothing is expected before something was written: not even zeros.
    Scratch,
    /// Kernel parameters.
    Uniform,
    /// Host-readable copies.
    Readback,
}

/// A buffer on the device, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    pub(super) inner: wgpu::Buffer,
    /// First byte.
    at: u64,
    bytes: u64,
    /// The byte behind what may be used of the buffer it is a part of.
    end: u64,
    /// Bytes of the guard zone behind that, of which bindings show as many as belong to it: see [`super::guard`].
    zone: u64,
}

impl Buffer {
    /// Size in bytes that was asked for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `bytes` of it from `at`, a multiple of 256.
    ///
    /// # Panics
    /// If they are not there: the caller's bug.
    #[must_use]
    pub fn part(&self, at: u64, bytes: u64) -> Self {
        assert!(at + bytes <= self.bytes && at.is_multiple_of(256), "{bytes} bytes at {at} of {}", self.bytes);
        Self { at: self.at + at, bytes, ..self.clone() }
    }

    /// `bytes` of a buffer of wgpu's from `at`.
    pub(super) fn of(inner: &wgpu::Buffer, at: u64, bytes: u64) -> Self {
        Self { inner: inner.clone(), at, bytes, end: at + bytes, zone: 0 }
    }

    /// The buffer that this one is the [part](Self::part) at `at` of, if it could have `bytes`.
    pub(crate) fn around(&self, at: u64, bytes: u64) -> Option<Self> {
        let first = self.at.checked_sub(at)?;
        (first + bytes <= self.end).then(|| Self { at: first, bytes, ..self.clone() })
    }

    /// First byte of the buffer it is a part of.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// As a binding: whole groups of four floats, and what guards them.
    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = self.bytes.max(16).next_multiple_of(16) + self.zone;
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.inner,
            offset: self.at,
            size: std::num::NonZero::new(size),
        })
    }
}

/// A copy to the host that is under way: started without stalling the queue, collected later.
pub struct PendingRead {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    done: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Gpu {
    /// Allocates `bytes` (rounded up to 16, so that kernels may go four floats at a time; zeroed by the device on first use).
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] if the device refuses.
    pub fn allocate(&self, label: &str, bytes: u64, usage: Usage) -> Result<Buffer> {
        use wgpu::BufferUsages as U;
        let size = bytes.max(16).next_multiple_of(16);
        if size > self.caps().max_buffer {
            return Err(self.out_of_memory(&format!(
                "'{label}' needs {} MiB and one buffer holds at most {} MiB",
                size >> 20,
                self.caps().max_buffer >> 20
            )));
        }
        let (flags, tensors) = match usage {
            Usage::Storage | Usage::Scratch => (U::STORAGE | U::COPY_SRC | U::COPY_DST, true),
            Usage::Uniform => (U::UNIFORM | U::COPY_DST, false),
            Usage::Readback => (U::MAP_READ | U::COPY_DST, false),
        };
        let guards = self.guards.as_ref().filter(|_| tensors);
        let zone = if guards.is_some() { ZONE } else { 0 };
        let (label, whole) = (Some(label), size + 2 * zone);
        let descriptor = wgpu::BufferDescriptor { label, size: whole, usage: flags, mapped_at_creation: false };
        let inner =
            self.scoped(wgpu::ErrorFilter::OutOfMemory, || self.device.create_buffer(&descriptor)).map_err(|_| {
                let label = label.unwrap_or_default();
                self.out_of_memory(&format!("'{label}' of {} MiB could not be allocated", size >> 20))
            })?;
        if let Some(guards) = guards {
            self.guard(guards, label.unwrap_or_default(), &inner, size, usage);
        }
        Ok(Buffer { inner, at: zone, bytes, end: zone + size, zone })
    }

    /// Copies `data` into the buffer, ordered before the next submission.
    ///
    /// # Panics
    /// If `data` is longer than the buffer: the caller's bug.
    pub fn upload(&self, buffer: &Buffer, data: &[u8]) {
        assert!(data.len() as u64 <= buffer.bytes.next_multiple_of(16), "upload of {} bytes", data.len());
        if data.len().is_multiple_of(4) {
            self.queue.write_buffer(&buffer.inner, buffer.at, data);
        } else {
            // An odd number of 16-bit elements; buffers are whole words.
            let mut words = data.to_vec();
            words.resize(data.len().next_multiple_of(4), 0);
            self.queue.write_buffer(&buffer.inner, buffer.at, &words);
        }
    }

    /// Submits `encoder` with copies of buffers to staging buffers at its end, and begins to map those.
    pub(super) fn submit_copies(
        &self,
        mut encoder: wgpu::CommandEncoder,
        copies: &[(&Buffer, &Buffer)],
    ) -> Vec<PendingRead> {
        for (source, staging) in copies {
            let bytes = source.bytes.next_multiple_of(4);
            encoder.copy_buffer_to_buffer(&source.inner, source.at, &staging.inner, staging.at, bytes);
        }
        let submission = self.send(encoder.finish());
        let read = |&(source, staging): &(&Buffer, &Buffer)| {
            let (sender, done) = mpsc::channel();
            staging.inner.map_async(wgpu::MapMode::Read, 0..source.bytes.next_multiple_of(4), move |result| {
                // The receiver is gone if nobody waits any more: then nobody needs the answer.
                let _ = sender.send(result);
            });
            PendingRead { buffer: staging.inner.clone(), bytes: source.bytes, submission: submission.clone(), done }
        };
        copies.iter().map(read).collect()
    }

    /// Collects a copy, waiting for it if it has not arrived, and frees its staging buffer for the next.
    ///
    /// # Errors
    /// [`Kind::DeviceLost`] and the like, as [`Gpu::check`].
    pub fn finish_read(&self, read: PendingRead) -> Result<Vec<u8>> {
        self.finish_read_with(read, <[u8]>::to_vec)
    }

    /// As [`finish_read`](Self::finish_read), for whoever wants the bytes elsewhere: `take` gets them where they lie.
    ///
    /// # Errors
    /// As [`finish_read`](Self::finish_read).
    pub fn finish_read_with<T>(&self, read: PendingRead, take: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let answer = match read.done.try_recv() {
            Ok(answer) => answer,
            Err(_) => {
                // For this submission only: later ones stay under way.
                self.wait_for(read.submission)?;
                read.done.recv().map_err(|_| Error::new(Kind::Internal, "a buffer mapping was abandoned"))?
            }
        };
        if let Err(e) = answer {
            // What cost the device says more than that it is gone.
            self.check()?;
            return Err(self.lost(&e.to_string()));
        }
        let view = read
            .buffer
            .get_mapped_range(0..read.bytes.next_multiple_of(4))
            .map_err(|e| Error::new(Kind::Internal, format!("could not read a mapped buffer: {e}")))?;
        let taken = take(&view[..read.bytes as usize]);
        drop(view);
        read.buffer.unmap();
        Ok(taken)
    }

    /// Reads a buffer back and waits for it: for tests, checkpoints and other places that are not the training loop.
    ///
    /// # Errors
    /// As [`finish_read`](Self::finish_read), or [`Kind::OutOfMemory`] for the staging buffer.
    pub fn download(&self, buffer: &Buffer) -> Result<Vec<u8>> {
        let staging = self.allocate("download", buffer.bytes, Usage::Readback)?;
        let mut pending = self.submit_and_read(&[], &[(buffer, &staging)]);
        pending.pop().map_or_else(|| Ok(vec![]), |read| self.finish_read(read))
    }
}
