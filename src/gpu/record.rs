//! Recorded work as plain data.

use super::{Kernel, UniformBlock};

/// Whether a kernel only reads a binding or also writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// A tensor a dispatch works on, relative to the node it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Input number of the node.
    Input(usize),
    /// Output number of the node.
    Output(usize),
    /// Scratch tensor number of the node.
    Scratch(usize),
}

/// One storage binding of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binding {
    /// What is bound.
    pub operand: Operand,
    /// How it is used.
    pub access: Access,
}

/// What a dispatch costs in principle: for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes that must be moved at least.
    pub bytes: u64,
}

/// One kernel launch as plain data. Binding 0 is the parameters (absent in a specialised variant), then the
/// storage bindings in order from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The kernel variant.
    pub kernel: Kernel,
    /// The parameters.
    pub parameters: UniformBlock,
    /// Whether the parameters are compiled in as constants.
    pub specialised: bool,
    /// Storage bindings.
    pub bindings: Vec<Binding>,
    /// Workgroups along x, y, z.
    pub workgroups: [u32; 3],
    /// Cost in principle.
    pub work: Work,
}

impl Dispatch {
    /// A launch of `kernel` over `workgroups`.
    pub fn new(kernel: Kernel, parameters: UniformBlock, workgroups: [u32; 3]) -> Self {
        Self { kernel, parameters, specialised: false, bindings: vec![], workgroups, work: Work::default() }
    }

    /// Binds node input `i` for reading.
    #[must_use]
    pub fn input(self, i: usize) -> Self {
        self.bind(Operand::Input(i), Access::Read)
    }

    /// Binds node output `i` for writing.
    #[must_use]
    pub fn output(self, i: usize) -> Self {
        self.bind(Operand::Output(i), Access::ReadWrite)
    }

    /// Binds any operand.
    #[must_use]
    pub fn bind(mut self, operand: Operand, access: Access) -> Self {
        self.bindings.push(Binding { operand, access });
        self
    }

    /// States the cost.
    #[must_use]
    pub fn work(mut self, flops: u64, bytes: u64) -> Self {
        self.work = Work { flops, bytes };
        self
    }

    /// Compiles the parameters in as constants.
    #[must_use]
    pub fn specialised(mut self) -> Self {
        self.specialised = true;
        self
    }
}

/// Width of a folded one-dimensional grid, in workgroups: below every device's limit of 65,535.
/// `shaders/lib/index.wgsl` has the same constant.
const GRID_WIDTH: u64 = 32_768;

/// A one-dimensional grid of `groups` workgroups, folded into rows so that no axis exceeds a device's limit. The kernel
/// gets the linear index back with `group_index()` and must skip what lies past the end.
pub fn grid(groups: u64) -> [u32; 3] {
    if groups <= GRID_WIDTH {
        [groups.max(1) as u32, 1, 1]
    } else {
        [GRID_WIDTH as u32, groups.div_ceil(GRID_WIDTH) as u32, 1]
    }
}

/// A folded grid for `threads` invocations in workgroups of `size`.
pub fn grid_for(threads: usize, size: u32) -> [u32; 3] {
    grid((threads as u64).div_ceil(u64::from(size)))
}

/// A dispatch with everything resolved: ready to be encoded again every step.
#[derive(Clone)]
pub struct Recorded {
    pub(super) pipeline: std::sync::Arc<super::Pipeline>,
    pub(super) bind_group: wgpu::BindGroup,
    pub(super) workgroups: [u32; 3],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_and_stay_within_limits() {
        for groups in [0, 1, 32_768, 32_769, 100_000, 32_768 * 65_535] {
            let [x, y, z] = grid(groups);
            assert!(u64::from(x) * u64::from(y) * u64::from(z) >= groups && x <= 65_535 && y <= 65_535);
        }
    }
}
