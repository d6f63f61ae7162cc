//! Guard zones: for tests, every buffer of tensors lies in a larger one, between two zones of NaN. A kernel that reads behind a
//! tensor then computes NaN, and one that writes there is found by [`Gpu::check_guards`]. Bindings reach into the zone behind, since
//! many drivers answer zero and store nothing beyond a binding, whatever lies there. What a buffer holds before anything was
//! written to it is NaN as well, where nobody is promised zeros.

use std::sync::{Mutex, PoisonError};

use super::Gpu;
use super::buffer::{Buffer, Usage};
use crate::error::{Error, Kind, Result};

/// Bytes of a zone: more than a workgroup of any kernel reads in a row.
pub(super) const ZONE: u64 = 1 << 14;
/// A NaN that no kernel makes.
const CANARY: u32 = 0x7fc0_a5a5;

/// A buffer whose zones are to be looked at.
#[derive(Debug)]
struct Guarded {
    label: String,
    buffer: wgpu::Buffer,
}

/// The guarded buffers of a device.
#[derive(Debug, Default)]
pub(super) struct Guards(Mutex<Vec<Guarded>>);

fn canaries(bytes: u64) -> Vec<u8> {
    CANARY.to_le_bytes().repeat((bytes / 4) as usize)
}

impl Guards {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Guarded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gpu {
    /// Whether tensors lie between guard zones.
    pub(crate) fn has_guards(&self) -> bool {
        self.guards.is_some()
    }

    /// Fills what lies around the `size` usable bytes of a new buffer, and those too if they mean nothing yet.
    pub(super) fn guard(&self, guards: &Guards, label: &str, buffer: &wgpu::Buffer, size: u64, usage: Usage) {
        match usage {
            Usage::Scratch => self.queue.write_buffer(buffer, 0, &canaries(2 * ZONE + size)),
            Usage::Storage | Usage::Uniform | Usage::Readback => {
                [0, ZONE + size].into_iter().for_each(|at| self.queue.write_buffer(buffer, at, &canaries(ZONE)));
            }
        }
        guards.list().push(Guarded { label: label.to_owned(), buffer: buffer.clone() });
    }

    /// Looks at the zones around all buffers that were allocated since the last call: see
    /// [`GpuOptions::guards`](super::GpuOptions::guards). How many that were.
    ///
    /// # Errors
    /// [`Kind::Internal`] if something was written there, with the name of the buffer; device errors.
    pub fn check_guards(&self) -> Result<usize> {
        let Some(guards) = &self.guards else { return Ok(0) };
        let list = std::mem::take(&mut *guards.list());
        for Guarded { label, buffer } in &list {
            for (side, at) in [("before", 0), ("behind", buffer.size() - ZONE)] {
                let zone = self.download(&Buffer::of(buffer, at, ZONE))?;
                let strange = zone.chunks_exact(4).position(|word| word != CANARY.to_le_bytes());
                if let Some(word) = strange {
                    let what =
                        format!("something was written {side} '{label}', at byte {} of its guard zone", 4 * word);
                    return Err(Error::new(Kind::Internal, what));
                }
            }
        }
        Ok(list.len())
    }
}
