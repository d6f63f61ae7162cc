//! Adapters: what a machine has, what each can do, and which one to use.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Kind, Result};

/// What to do on a machine without any adapter.
pub const NO_ADAPTER_HINT: &str = "install a Vulkan driver (Debian and Ubuntu: `apt install libvulkan1 \
     mesa-vulkan-drivers`); macOS and Windows bring Metal and DirectX 12 with the system";

/// How an adapter runs: the order is the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceClass {
    /// A graphics card of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU seen through a virtual machine.
    Virtual,
    /// A driver that runs shaders on the CPU (lavapipe, SwiftShader, WARP).
    Software,
    /// The driver does not say.
    Other,
}

impl DeviceClass {
    fn of(device_type: wgpu::DeviceType) -> Self {
        match device_type {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Cpu => Self::Software,
            wgpu::DeviceType::Other => Self::Other,
        }
    }

    /// The name shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Other => "other",
        }
    }
}

/// An optional capability the engine can use. Each is asked for only where the adapter has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// 16-bit floats in shaders.
    F16,
    /// Subgroup operations in compute shaders.
    Subgroups,
    /// Timestamps at the boundaries of compute passes.
    Timestamps,
    /// Compiled pipelines kept on disk.
    PipelineCache,
    /// Small immediate constants set while recording.
    Immediates,
    /// Matrix products by whole subgroups (tensor cores and the like), f16 factors and f32 sums.
    CooperativeMatrix,
}

impl Feature {
    /// Every feature, in the order shown to users.
    pub const ALL: [Self; 6] =
        [Self::F16, Self::Subgroups, Self::Timestamps, Self::PipelineCache, Self::Immediates, Self::CooperativeMatrix];

    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Subgroups => "subgroups",
            Self::Timestamps => "timestamps",
            Self::PipelineCache => "pipeline-cache",
            Self::Immediates => "immediates",
            Self::CooperativeMatrix => "cooperative-matrix",
        }
    }

    pub(super) fn wgpu(self) -> wgpu::Features {
        match self {
            Self::F16 => wgpu::Features::SHADER_F16,
            Self::Subgroups => wgpu::Features::SUBGROUP,
            Self::Timestamps => wgpu::Features::TIMESTAMP_QUERY,
            Self::PipelineCache => wgpu::Features::PIPELINE_CACHE,
            Self::Immediates => wgpu::Features::IMMEDIATES,
            Self::CooperativeMatrix => wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
        }
    }
}

impl std::str::FromStr for Feature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(Kind::Usage, format!("unknown feature '{text}'")).next(format!("known features: {names}"))
        })
    }
}

/// The range of subgroup sizes a driver may choose from; equal where the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubgroupSizes {
    /// Smallest.
    pub min: u32,
    /// Largest.
    pub max: u32,
}

/// How loads from textures compare with loads from buffers, where a texture has to be filled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextureLoads {
    /// Not worth a copy.
    Slow,
    /// Worth a copy of what is read many times.
    Faster,
    /// Worth a copy of what is read once.
    MuchFaster,
}

impl TextureLoads {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Faster => "faster",
            Self::MuchFaster => "much faster",
        }
    }
}

/// What tuning has chosen: shape class to kernel variant, in the words of the op that lowers it.
pub type Choices = BTreeMap<String, String>;

/// What a device can do, as far as choosing kernels and planning memory is concerned. Plain data: plans can be
/// made for a device that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caps {
    /// How the device runs.
    pub class: DeviceClass,
    /// Subgroup sizes, where subgroup operations are enabled.
    pub subgroups: Option<SubgroupSizes>,
    /// Whether shaders may use 16-bit floats.
    pub f16: bool,
    /// Side of the cooperative matrices (8 or 16) that multiply f16 and add in f32. An open device has it only once its
    /// products were proven: see [`Gpu::trust_matrices`](super::Gpu::trust_matrices).
    pub matrices: Option<u32>,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Workgroup memory in bytes.
    pub max_workgroup_memory: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Workgroups along one axis of a dispatch.
    pub max_workgroups: u32,
    /// Storage buffers in one shader stage.
    pub max_storage_buffers: u32,
    /// What tuning has chosen for it; what is not named is chosen by the op itself.
    pub choices: Arc<Choices>,
    /// How loads from textures compare with loads from buffers: measured when the device is opened.
    pub textures: TextureLoads,
    /// Whether shaders are built with run-time checks, whose loops of known length are not unrolled: see
    /// [`GpuOptions::checked`](super::GpuOptions::checked).
    pub checked: bool,
}

impl Caps {
    /// The same device with other tuned choices.
    #[must_use]
    pub fn with_choices(&self, choices: Choices) -> Self {
        Self { choices: Arc::new(choices), ..self.clone() }
    }

    /// All that decides which kernels there are for the device, as one line that is the same each time it is opened alike: what is
    /// timed or chosen is left out, and whether kernels have run-time checks.
    pub fn kind(&self) -> String {
        // All are named, so that a new one is thought of here.
        let Self {
            class,
            subgroups,
            f16,
            matrices,
            max_binding,
            max_buffer,
            max_workgroup_memory,
            max_invocations,
            max_workgroups,
            max_storage_buffers,
            choices: _,
            textures: _,
            checked: _,
        } = self;
        let subgroups = subgroups.map_or("no".to_owned(), |size| format!("{} to {}", size.min, size.max));
        let matrices = matrices.map_or("no".to_owned(), |side| side.to_string());
        format!(
            "{}, subgroups {subgroups}, f16 {f16}, matrices {matrices}, binding {max_binding}, buffer {max_buffer}, workgroup memory \
             {max_workgroup_memory}, invocations {max_invocations}, workgroups {max_workgroups}, storage buffers {max_storage_buffers}",
            class.name()
        )
    }

    /// The capabilities every WebGPU device has: what kernels must be able to fall back to.
    pub fn baseline() -> Self {
        Self {
            class: DeviceClass::Other,
            subgroups: None,
            f16: false,
            matrices: None,
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            max_workgroup_memory: 16 << 10,
            max_invocations: 256,
            max_workgroups: 65_535,
            max_storage_buffers: 8,
            choices: Arc::default(),
            textures: TextureLoads::Slow,
            checked: false,
        }
    }

    pub(super) fn of(
        class: DeviceClass,
        features: wgpu::Features,
        limits: &wgpu::Limits,
        info: &wgpu::AdapterInfo,
    ) -> Self {
        let subgroups = features
            .contains(wgpu::Features::SUBGROUP)
            .then_some(SubgroupSizes { min: info.subgroup_min_size, max: info.subgroup_max_size });
        Self {
            class,
            subgroups,
            f16: features.contains(wgpu::Features::SHADER_F16),
            matrices: None,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            choices: Arc::default(),
            textures: TextureLoads::Slow,
            checked: false,
        }
    }
}

/// One adapter as shown by `lesion-gpu devices`.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// Index for `--adapter`.
    pub index: usize,
    /// The device's name.
    pub name: String,
    /// How it runs.
    pub class: DeviceClass,
    /// The graphics API it is reached through.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Features the engine would use on it.
    pub features: Vec<Feature>,
    /// What it can do.
    pub caps: Caps,
    /// Side of the cooperative matrices it offers, proven or not.
    pub matrices: Option<u32>,
}

/// The largest square cooperative matrices of f16 factors and f32 sums that an adapter offers, if there are any.
fn matrices(adapter: &wgpu::Adapter) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let all = adapter.cooperative_matrix_properties().into_iter();
    let square = all.filter(|m| m.ab_type == F16 && m.cr_type == F32 && m.m_size == m.n_size && m.n_size == m.k_size);
    square.map(|m| m.m_size).filter(|side| [8, 16].contains(side)).max()
}

impl AdapterSummary {
    pub(super) fn of(index: usize, adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let class = DeviceClass::of(info.device_type);
        let matrices = matrices(adapter);
        let has = |f: &Feature| {
            // Where only other types of matrices are offered, the feature is of no use.
            adapter.features().contains(f.wgpu()) && (*f != Feature::CooperativeMatrix || matrices.is_some())
        };
        let features = Feature::ALL.into_iter().filter(has).collect();
        Self {
            index,
            class,
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            features,
            caps: Caps::of(class, adapter.features(), &adapter.limits(), &info),
            matrices,
            name: info.name,
        }
    }
}

pub(super) fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        // Software drivers often do not pass every conformance test; they are still good enough, and tested.
        flags: wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// All compute-capable adapters, best class first; the order is stable from run to run.
pub(super) fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    adapters.sort_by_key(|a| DeviceClass::of(a.get_info().device_type));
    adapters
}

/// Lists the adapters of this machine, best first.
pub fn list_adapters() -> Vec<AdapterSummary> {
    enumerate(&instance()).iter().enumerate().map(|(i, a)| AdapterSummary::of(i, a)).collect()
}

/// The adapter that `wanted` names, with its index: see [`pick`].
pub(super) fn choose(adapters: Vec<wgpu::Adapter>, wanted: Option<&str>) -> Result<(usize, wgpu::Adapter)> {
    let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let index = pick(&names, wanted)?;
    let adapter = adapters.into_iter().nth(index);
    adapter.map(|a| (index, a)).ok_or_else(|| Error::new(Kind::Internal, "adapter index out of range"))
}

/// Which of the adapters of these names, the best first, `wanted` is: an index, or a part of its name (any case); the best
/// one if `None`. Of several that have the same name, or are one GPU by several graphics APIs, it is the first.
///
/// # Errors
/// [`Kind::NoAdapter`] if there is none, [`Kind::Usage`] if the text is a part of different names.
fn pick(names: &[String], wanted: Option<&str>) -> Result<usize> {
    if names.is_empty() {
        return Err(
            Error::new(Kind::NoAdapter, "no GPU adapter was found, not even a software one").next(NO_ADAPTER_HINT)
        );
    }
    let Some(text) = wanted else { return Ok(0) };
    let list = || names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect::<Vec<_>>().join(", ");
    let none = || {
        Error::new(Kind::NoAdapter, format!("no adapter matches '{text}'"))
            .next(format!("choose by index or by part of a name: {}", list()))
    };
    // A number is an index and nothing else: names hold digits too.
    if let Ok(index) = text.parse::<usize>() {
        return if index < names.len() { Ok(index) } else { Err(none()) };
    }
    let wanted = text.to_lowercase();
    if let Some(whole) = names.iter().position(|name| name.to_lowercase() == wanted) {
        return Ok(whole);
    }
    let having: Vec<usize> = (0..names.len()).filter(|&i| names[i].to_lowercase().contains(&wanted)).collect();
    match having.split_first() {
        None => Err(none()),
        Some((&first, others)) if others.iter().all(|&i| names[i] == names[first]) => Ok(first),
        Some(_) => Err(Error::new(Kind::Usage, format!("'{text}' may be several adapters"))
            .next(format!("choose by index or by more of a name: {}", list()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_chosen_by_number_or_name() {
        let names = ["RTX 4090", "RTX 4090", "RTX 4090 Laptop", "Radeon 780M", "llvmpipe (LLVM 15.0.6, 256 bits)"];
        let names = names.map(str::to_owned);
        let pick = |wanted| pick(&names, wanted);
        assert_eq!(pick(None), Ok(0));
        for (wanted, index) in
            [("3", 3), ("radeon", 3), ("LLVMPIPE", 4), ("rtx 4090", 0), ("4090 laptop", 2), ("15.0.6", 4), ("0", 0)]
        {
            assert_eq!(pick(Some(wanted)), Ok(index), "{wanted}");
        }
        for (wanted, kind) in [
            ("5", Kind::NoAdapter),
            ("4090", Kind::NoAdapter),
            ("-1", Kind::NoAdapter),
            ("GeForce", Kind::NoAdapter),
            ("rtx", Kind::Usage),
            ("", Kind::Usage),
        ] {
            let error = pick(Some(wanted)).unwrap_err();
            assert_eq!(error.kind(), kind, "{wanted}: {error}");
            assert!(error.to_string().contains("3: Radeon 780M"), "{wanted}: {error}");
        }
        let twins = ["A770".to_owned(), "A770".to_owned()];
        assert_eq!(super::pick(&twins, Some("a7")), Ok(0), "one GPU by two graphics APIs");
        assert_eq!(super::pick(&twins, Some("1")), Ok(1));
        assert_eq!(super::pick(&[], None).unwrap_err().kind(), Kind::NoAdapter);
    }
}
