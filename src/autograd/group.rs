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

fn elements(buffer: &Buffer) -> usize {
    buffer.bytes() as usize / size_of::<f32>()
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
        let mut values = vec![0.0; self.elements()];
        self.finish(gpu, self.start(gpu, &[]), &mut values)?;
        Ok(values)
    }

    /// Submits launches, and behind them the way of all values to the host; does not wait. They must have come before the next
    /// time.
    pub(super) fn start(&self, gpu: &Gpu, launches: &[Recorded]) -> PendingGroup {
        let copies: Vec<(&Buffer, &Buffer)> =
            self.variables.iter().map(|(buffer, staging)| (buffer, staging)).collect();
        PendingGroup { reads: gpu.submit_and_read(launches, &copies) }
    }

    /// Waits for them, and writes them to `values`, one behind the other.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there is room for more or fewer; device errors.
    pub fn finish(&self, gpu: &Gpu, pending: PendingGroup, values: &mut [f32]) -> Result<()> {
        self.check_length(values)?;
        let mut rest = values;
        for ((buffer, _), read) in self.variables.iter().zip(pending.reads) {
            let (own, others) = rest.split_at_mut(elements(buffer));
            gpu.finish_read_with(read, |bytes| bytemuck::cast_slice_mut(own).copy_from_slice(bytes))?;
            rest = others;
        }
        Ok(())
    }

    /// How many numbers there are in all.
    pub fn elements(&self) -> usize {
        self.variables.iter().map(|(buffer, _)| elements(buffer)).sum()
    }

    fn check_length(&self, values: &[f32]) -> Result<()> {
        match self.elements() {
            all if all == values.len() => Ok(()),
            all => Err(Error::new(Kind::Shape, format!("{} values for variables of {all}", values.len()))),
        }
    }

    /// Writes them all, from values as [`read`](Self::read) returns them.
    ///
    /// # Errors
    /// [`Kind::Shape`] if there are more or fewer.
    pub fn write(&self, gpu: &Gpu, values: &[f32]) -> Result<()> {
        self.check_length(values)?;
        let mut rest = values;
        for (buffer, _) in &self.variables {
            let (own, others) = rest.split_at(elements(buffer));
            gpu.upload(buffer, bytemuck::cast_slice(own));
            rest = others;
        }
        Ok(())
    }
}
