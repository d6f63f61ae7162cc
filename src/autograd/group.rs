//! Variables that go to the host and back together, again and again.

use super::Store;
use crate::error::{Error, Kind, Result};
use crate::gpu::{Buffer, Gpu, PendingRead, Recorded, Usage};
use crate::tensor::DType;

/// Float variables of a store, with the buffers through which they are read.
pub struct Group {
    variables: Vec<(Buffer, Buffer)>,
}

impl Store {
    /// The variables of these names, in this order.
    ///
    /// # Errors
    /// [`Kind::Internal`] if one is not there or not in f32; [`Kind::OutOfMemory`].
    pub fn group<'a>(&self, gpu: &Gpu, names: impl IntoIterator<Item = &'a str>) -> Result<Group> {
        let variables = names.into_iter().map(|name| {
            let (ty, buffer) = self.entry(name)?;
            match ty.dtype {
                DType::F32 => Ok((buffer.clone(), gpu.allocate("readback", ty.bytes(), Usage::Readback)?)),
                _ => Err(Error::new(Kind::Internal, format!("variable '{name}' is {ty}, and f32 was expected"))),
            }
        });
        Ok(Group { variables: variables.collect::<Result<_>>()? })
    }
}

/// The values of a group on their way to the host.
pub struct PendingGroup {
    reads: Vec<PendingRead>,
}

impl Group {
    /// Reads them all, one behind the other, and waits for it.
    ///
    /// # Errors
    /// Device errors.
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<f32>> {
        self.finish(gpu, self.start(gpu, &[]))
    }

    /// Submits launches, and behind them the way of all values to the host; does not wait. They must have come before the next
    /// time.
    pub(super) fn start(&self, gpu: &Gpu, launches: &[Recorded]) -> PendingGroup {
        let copies: Vec<(&Buffer, &Buffer)> =
            self.variables.iter().map(|(buffer, staging)| (buffer, staging)).collect();
        PendingGroup { reads: gpu.submit_and_read(launches, &copies) }
    }

    /// Waits for them.
    ///
    /// # Errors
    /// Device errors.
    pub fn finish(&self, gpu: &Gpu, pending: PendingGroup) -> Result<Vec<f32>> {
        let mut values = vec![];
        for read in pending.reads {
            values.extend_from_slice(&bytemuck::pod_collect_to_vec::<u8, f32>(&gpu.finish_read(read)?));
        }
        Ok(values)
    }

    /// How many numbers there are in all.
    pub fn elements(&self) -> usize {
        self.variables.iter().map(|(buffer, _)| buffer.bytes() as usize / size_of::<f32>()).sum()
    }

    /// Writes them all, from values as [`read`](Self::read) returns them.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there are more or fewer.
    pub fn write(&self, gpu: &Gpu, values: &[f32]) -> Result<()> {
        let elements = |buffer: &Buffer| buffer.bytes() as usize / size_of::<f32>();
        let all = self.elements();
        if values.len() != all {
            return Err(Error::new(Kind::Shape, format!("{} values for variables of {all}", values.len())));
        }
        let mut rest = values;
        for (buffer, _) in &self.variables {
            let (own, others) = rest.split_at(elements(buffer));
            gpu.upload(buffer, bytemuck::cast_slice(own));
            rest = others;
        }
        Ok(())
    }
}
