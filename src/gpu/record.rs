//! Recorded work as plain data.

use super::kernel::{Load, ReadFrom};
use super::{Kernel, UniformBlock};

/// How a kernel gets at a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
    /// `var texture_storage_2d<.., read>`: only reads, from a copy that is made right before the launch.
    Texture(Texture),
}

/// A copy of a tensor in a texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Texture {
    /// Elements to copy.
    pub elements: usize,
    /// What a texel holds.
    pub texel: Texel,
}

/// What a kernel loads of a tensor at a time, and what a texel of its copy in a texture holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Texel {
    /// Four elements that lie side by side; else one.
    pub four: bool,
    /// In f16; else f32.
    pub half: bool,
}

/// How a kernel reads a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What it loads at a time.
    pub texel: Texel,
    /// The elements of a copy in a texture, if it reads that and not the buffer.
    pub copied: Option<usize>,
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

/// One binding of a dispatch.
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
/// bindings of tensors in order from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// The kernel variant.
    pub kernel: Kernel,
    /// The parameters.
    pub parameters: UniformBlock,
    /// Whether the parameters are compiled in as constants.
    pub specialised: bool,
    /// Bindings of tensors.
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

    /// Binds an operand for reading by a function of the kernel's that the linker writes: `NAME_at(i)` is element number
    /// `i`, an `f32`, or the four from `4 * i`, a `vec4f`.
    #[must_use]
    pub fn load(mut self, name: &'static str, operand: Operand, reading: Reading) -> Self {
        let Reading { texel, copied } = reading;
        let binding = self.bindings.len() as u32 + 1;
        let from = if copied.is_some() { ReadFrom::Texture(binding) } else { ReadFrom::Buffer(binding) };
        self.kernel.loads.push(Load { name, from, texel });
        let texture = copied.map(|elements| Access::Texture(Texture { elements, texel }));
        self.bind(operand, texture.unwrap_or(Access::Read))
    }

    /// As [`load`](Self::load), for what the kernel writes too: it declares NAME, and was bound to it before. What is
    /// read is the value before the launch, from a texture, or what the buffer holds.
    #[must_use]
    pub fn load_written(mut self, name: &'static str, operand: Operand, reading: Reading) -> Self {
        if reading.copied.is_some() {
            return self.load(name, operand, reading);
        }
        self.kernel.loads.push(Load { name, from: ReadFrom::Declared, texel: reading.texel });
        self
    }

    /// Tensors that other entry points of the source read by such functions, and this one does not: four elements at
    /// a time or one.
    #[must_use]
    pub fn unread(mut self, names: &[&'static str], four: bool) -> Self {
        let texel = Texel { four, half: false };
        self.kernel.loads.extend(names.iter().map(|name| Load { name, from: ReadFrom::Nowhere, texel }));
        self
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
    /// Copies to textures that come before it.
    pub(super) copies: Vec<super::texture::Copy>,
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
