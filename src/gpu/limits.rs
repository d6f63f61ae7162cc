//! Limits below an adapter's own: how a device with less is had on one with more. The device is requested with them, so
//! wgpu enforces them, and whatever was planned beyond them is an error.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Kind, Result};

/// A limit that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Storage buffers in one shader stage.
    StorageBuffers,
    /// Bytes of the largest storage binding.
    Binding,
    /// Bytes of the largest buffer.
    Buffer,
    /// Bytes of a workgroup's memory.
    WorkgroupMemory,
    /// Invocations in a workgroup.
    Invocations,
}

impl Limit {
    const ALL: [Self; 5] =
        [Self::StorageBuffers, Self::Binding, Self::Buffer, Self::WorkgroupMemory, Self::Invocations];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::StorageBuffers => "storage-buffers",
            Self::Binding => "binding",
            Self::Buffer => "buffer",
            Self::WorkgroupMemory => "workgroup-memory",
            Self::Invocations => "invocations",
        }
    }

    fn in_bytes(self) -> bool {
        !matches!(self, Self::StorageBuffers | Self::Invocations)
    }

    /// The least that can be asked for. Kernels count on what every WebGPU device has; tensors may be smaller than that,
    /// but not than what is allocated while a device is opened.
    fn least(self) -> u64 {
        let webgpu = wgpu::Limits::default();
        match self {
            Self::Binding | Self::Buffer => 1 << 20,
            Self::StorageBuffers | Self::WorkgroupMemory | Self::Invocations => self.of(&webgpu),
        }
    }

    fn of(self, limits: &wgpu::Limits) -> u64 {
        match self {
            Self::StorageBuffers => limits.max_storage_buffers_per_shader_stage.into(),
            Self::Binding => limits.max_storage_buffer_binding_size,
            Self::Buffer => limits.max_buffer_size,
            Self::WorkgroupMemory => limits.max_compute_workgroup_storage_size.into(),
            Self::Invocations => limits.max_compute_invocations_per_workgroup.into(),
        }
    }

    /// Sets a value that is not above the present one.
    fn set(self, limits: &mut wgpu::Limits, value: u64) {
        let small = u32::try_from(value).unwrap_or(u32::MAX);
        match self {
            Self::StorageBuffers => limits.max_storage_buffers_per_shader_stage = small,
            Self::Binding => limits.max_storage_buffer_binding_size = value,
            Self::Buffer => {
                limits.max_buffer_size = value;
                limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(value);
            }
            Self::WorkgroupMemory => limits.max_compute_workgroup_storage_size = small,
            Self::Invocations => {
                limits.max_compute_invocations_per_workgroup = small;
                limits.max_compute_workgroup_size_x = limits.max_compute_workgroup_size_x.min(small);
                limits.max_compute_workgroup_size_y = limits.max_compute_workgroup_size_y.min(small);
                limits.max_compute_workgroup_size_z = limits.max_compute_workgroup_size_z.min(small);
            }
        }
    }
}

/// Limits to open a device with; what is not set is the adapter's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// All limits, those that have no name here too, are those that every WebGPU device has, but for what is set.
    pub baseline: bool,
    /// What is set.
    pub set: BTreeMap<Limit, u64>,
}

impl Limits {
    /// Those of any WebGPU device.
    pub fn baseline() -> Self {
        Self { baseline: true, set: BTreeMap::new() }
    }

    /// An adapter's limits with these in their place.
    ///
    /// # Errors
    /// [`Kind::Usage`] for less than kernels can do with, [`Kind::Unsupported`] for more than the adapter has.
    pub(super) fn of(&self, own: &wgpu::Limits) -> Result<wgpu::Limits> {
        let mut limits = match self.baseline {
            true => wgpu::Limits::default().or_worse_values_from(own),
            false => own.clone(),
        };
        for (&limit, &value) in &self.set {
            let (name, has, least) = (limit.name(), limit.of(own), limit.least());
            if value < least {
                return Err(Error::new(Kind::Usage, format!("--limit {name}={value} is too small"))
                    .next(format!("the smallest is {least}")));
            }
            if value > has {
                return Err(Error::new(Kind::Unsupported, format!("--limit {name}={value} is more than there is"))
                    .next(format!("give {has} or less, or choose another adapter with --adapter")));
            }
            // Bindings are whole groups of four floats.
            limit.set(&mut limits, if limit.in_bytes() { value & !15 } else { value });
        }
        Ok(limits)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set.iter().map(|(limit, value)| format!("{}={value}", limit.name()));
        let all: Vec<String> = self.baseline.then(|| "baseline".to_owned()).into_iter().chain(set).collect();
        f.write_str(&all.join(","))
    }
}

impl std::str::FromStr for Limits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim) {
            if part == "baseline" {
                limits.baseline = true;
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let limit = Limit::ALL.into_iter().find(|l| l.name() == name).ok_or_else(|| {
                let names = Limit::ALL.map(Limit::name).join(", ");
                Error::new(Kind::Usage, format!("unknown limit '{name}'")).next(format!("known: baseline, {names}"))
            })?;
            let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
            let unit = units.iter().find(|(unit, _)| limit.in_bytes() && value.ends_with(unit)).copied();
            let (digits, factor) =
                unit.map_or((value, 1), |(unit, factor)| (&value[..value.len() - unit.len()], factor));
            let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| {
                let unit = if limit.in_bytes() { ", in bytes, KiB, MiB or GiB" } else { "" };
                Error::new(Kind::Usage, format!("'{value}' is no number for the limit '{name}'"))
                    .next(format!("give a whole number{unit}, such as {name}={}", limit.least()))
            })?;
            limits.set.insert(limit, number);
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written() {
        let limits: Limits = "storage-buffers=8, binding=128MiB,buffer=1GiB".parse().unwrap();
        assert_eq!(limits.set[&Limit::Binding], 128 << 20);
        assert_eq!(limits.to_string(), "storage-buffers=8,binding=134217728,buffer=1073741824");
        assert_eq!("baseline".parse::<Limits>().unwrap(), Limits::baseline());
        assert_eq!(limits.to_string().parse::<Limits>().unwrap(), limits);
        for bad in ["", "f16=1", "binding", "binding=x", "binding=-1", "storage-buffers=8MiB", "binding=99999999999GiB"]
        {
            let error = bad.parse::<Limits>().unwrap_err();
            assert!(error.kind() == Kind::Usage && error.to_string().contains("next:"), "{bad}: {error}");
        }
    }

    #[test]
    fn no_limit_is_raised_and_none_falls_below_what_kernels_need() {
        let own = wgpu::Limits {
            max_storage_buffer_binding_size: 2 << 30,
            max_storage_buffers_per_shader_stage: 64,
            ..Default::default()
        };
        let of = |text: &str| text.parse::<Limits>().unwrap().of(&own);
        assert_eq!(of("binding=1234567").unwrap().max_storage_buffer_binding_size, 1_234_560, "whole groups of four");
        assert_eq!(of("baseline").unwrap(), wgpu::Limits::default());
        assert_eq!(of("baseline,storage-buffers=10").unwrap().max_storage_buffers_per_shader_stage, 10);
        assert_eq!(of("buffer=2MiB").unwrap().max_storage_buffer_binding_size, 2 << 20, "no binding exceeds a buffer");
        for (text, kind) in [
            ("binding=4GiB", Kind::Unsupported),
            ("storage-buffers=65", Kind::Unsupported),
            ("storage-buffers=7", Kind::Usage),
            ("workgroup-memory=1KiB", Kind::Usage),
            ("invocations=64", Kind::Usage),
            ("binding=1KiB", Kind::Usage),
        ] {
            assert_eq!(of(text).unwrap_err().kind(), kind, "{text}");
        }
        let poor = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() };
        assert_eq!(Limits::baseline().of(&poor).unwrap().max_storage_buffers_per_shader_stage, 4);
    }
}
