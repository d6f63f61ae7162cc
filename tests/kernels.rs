//! Every kernel variant that any case needs on any class of device: linked, parsed, validated and translated to SPIR-V,
//! MSL and HLSL (cooperative matrices to the first two), with its bindings and parameters compared to what Rust declares. Needs no GPU.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use lesion_gpu::bench::probe_dispatches;
use lesion_gpu::gpu::{Access, Caps, DeviceClass, Dispatch, Scalar, SubgroupSizes, TextureLoads};
use lesion_gpu::ops::all_cases;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, GlobalVariable, Module, ResourceBinding, ShaderStage, StorageAccess, TypeInner};

/// Devices that choose kernels differently.
fn devices() -> Vec<(&'static str, Caps)> {
    let sizes = |min, max| Some(SubgroupSizes { min, max });
    let large = Caps { max_binding: 2 << 30, max_buffer: 4 << 30, max_workgroup_memory: 48 << 10, ..Caps::baseline() };
    let large = Caps { max_invocations: 1024, max_storage_buffers: 16, ..large };
    vec![
        ("baseline", Caps::baseline()),
        ("software", Caps { class: DeviceClass::Software, subgroups: sizes(8, 8), f16: true, ..large.clone() }),
        (
            "software with textures",
            Caps {
                class: DeviceClass::Software,
                subgroups: sizes(8, 8),
                f16: true,
                textures: TextureLoads::MuchFaster,
                ..large.clone()
            },
        ),
        (
            "tensor cores",
            Caps {
                class: DeviceClass::Discrete,
                subgroups: sizes(32, 32),
                f16: true,
                matrices: Some(16),
                ..large.clone()
            },
        ),
        (
            "software matrices",
            Caps {
                class: DeviceClass::Software,
                subgroups: sizes(8, 8),
                f16: true,
                matrices: Some(8),
                ..large.clone()
            },
        ),
        ("discrete", Caps { class: DeviceClass::Discrete, subgroups: sizes(32, 32), f16: false, ..large.clone() }),
        ("integrated", Caps { class: DeviceClass::Integrated, subgroups: sizes(8, 32), f16: true, ..large }),
        ("weak", Caps { class: DeviceClass::Integrated, max_binding: 32 << 20, ..Caps::baseline() }),
    ]
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    kernel: lesion_gpu::gpu::Kernel,
    accesses: Vec<Access>,
    constants: Option<lesion_gpu::gpu::UniformBlock>,
    f16: bool,
}

/// What the variants of all cases reached.
#[derive(Default)]
struct Reached {
    /// Shader file to its entry points: those that exist and those that some launch runs.
    files: BTreeMap<&'static str, (BTreeSet<String>, BTreeSet<String>)>,
    libraries: BTreeSet<&'static str>,
}

#[test]
fn every_variant_is_valid_everywhere() {
    let mut seen = HashSet::new();
    let mut reached = Reached::default();
    let mut failures = vec![];
    for (device, caps) in devices() {
        let cases = all_cases().into_iter().filter(|c| caps.f16 || !c.needs_half());
        let cases = cases.map(|case| (case.label(), case.launches(&caps)));
        for (label, dispatches) in cases.chain([("probes".to_owned(), Ok(probe_dispatches(&caps)))]) {
            let dispatches = match dispatches {
                Ok(dispatches) => dispatches,
                Err(e) => {
                    failures.push(format!("{label} cannot be planned for the {device} device: {e}"));
                    continue;
                }
            };
            for dispatch in &dispatches {
                let kernel = dispatch.kernel.clone();
                let key = Key {
                    accesses: dispatch.bindings.iter().map(|b| b.access).collect(),
                    constants: dispatch.specialised.then(|| dispatch.parameters.clone()),
                    f16: caps.f16,
                    kernel: kernel.clone(),
                };
                if !seen.insert(key) {
                    continue;
                }
                let (file, entry) = (kernel.source.file, kernel.entry);
                let constants = &kernel.constants;
                if let Err(message) = check(dispatch, &caps, &mut reached) {
                    failures.push(format!("{file}: {entry} ({constants:?} for {label}, {device}): {message}"));
                }
            }
        }
    }
    for (file, (exist, run)) in &reached.files {
        failures.extend(exist.difference(run).map(|entry| format!("{file}: no case reaches {entry}")));
    }
    for (folder, names) in
        [("shaders", reached.files.keys().collect::<Vec<_>>()), ("shaders/lib", reached.libraries.iter().collect())]
    {
        for (file, _) in shader_files(folder) {
            if !names.iter().any(|n| **n == file) {
                failures.push(format!("{folder}/{file}: no case reaches this file"));
            }
        }
    }
    assert!(!seen.is_empty());
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// Checks one kernel variant.
fn check(dispatch: &Dispatch, caps: &Caps, reached: &mut Reached) -> Result<(), String> {
    let kernel = &dispatch.kernel;
    let text = kernel.link(Some(&dispatch.parameters), dispatch.specialised);
    let libraries = kernel.source.libraries.iter().chain(&kernel.libraries);
    reached.libraries.extend(libraries.map(|l| l.file));
    let (exist, run) = reached.files.entry(kernel.source.file).or_default();
    run.insert(kernel.entry.to_owned());

    ensure(!kernel.subgroups || caps.subgroups.is_some(), || "needs subgroups, and the device has none".into())?;
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, kernel.subgroups);
    capabilities.set(Capabilities::SHADER_FLOAT16, caps.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, kernel.matrices.is_some());
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text))?;
    exist.extend(module.entry_points.iter().map(|e| e.name.clone()));
    let info =
        Validator::new(ValidationFlags::all(), capabilities).validate(&module).map_err(|e| e.emit_to_string(&text))?;
    check_parameters(&module, dispatch)?;

    // Kernels have no overridable constants; what a shader declares by mistake is found here.
    let stage = (ShaderStage::Compute, kernel.entry);
    let (module, info) =
        naga::back::pipeline_constants::process_overrides(&module, &info, Some(stage), &Default::default())
            .map_err(|e| format!("overrides: {e}"))?;
    let index = module.entry_points.iter().position(|e| e.name == kernel.entry);
    let index = index.ok_or_else(|| format!("there is no entry point {}", kernel.entry))?;
    check_bindings(&module, &info, index, dispatch)?;
    check_limits(&module, &info, index, caps)?;
    translate(&module, &info, dispatch, caps)
}

/// `struct Params` is what `uniform_block!` laid out.
fn check_parameters(module: &Module, dispatch: &Dispatch) -> Result<(), String> {
    let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Params"));
    let Some((_, ty)) = found else { return Err("there is no struct Params".into()) };
    let TypeInner::Struct { members, span } = &ty.inner else { return Err("Params is not a struct".into()) };
    let wgsl: Vec<(String, Option<Scalar>, usize)> = members
        .iter()
        .map(|m| {
            let scalar = match module.types[m.ty].inner {
                TypeInner::Scalar(naga::Scalar::U32) => Some(Scalar::U32),
                TypeInner::Scalar(naga::Scalar::I32) => Some(Scalar::I32),
                TypeInner::Scalar(naga::Scalar::F32) => Some(Scalar::F32),
                _ => None,
            };
            (m.name.clone().unwrap_or_default(), scalar, m.offset as usize)
        })
        .collect();
    let block = &dispatch.parameters;
    let rust: Vec<_> = block.fields.iter().map(|f| (f.name.to_owned(), Some(f.scalar), f.offset)).collect();
    ensure(wgsl == rust, || format!("Params is {wgsl:?} in WGSL and {rust:?} in Rust"))?;
    ensure(*span as usize == block.bytes.len(), || format!("Params has {span} bytes, Rust {}", block.bytes.len()))
}

/// The entry point uses binding 0 for the parameters and every binding of the launch with its access, and no other.
fn check_bindings(module: &Module, info: &ModuleInfo, entry: usize, dispatch: &Dispatch) -> Result<(), String> {
    let mut unused: BTreeSet<u32> = (1..=dispatch.bindings.len() as u32).collect();
    for (handle, variable) in module.global_variables.iter() {
        if info.get_entry_point(entry)[handle].is_empty() {
            continue;
        }
        let name = variable.name.as_deref().unwrap_or("?");
        match (variable.space, &variable.binding) {
            (AddressSpace::WorkGroup | AddressSpace::Private, None) => {}
            (AddressSpace::Uniform, Some(b)) if b.group == 0 && b.binding == 0 && !dispatch.specialised => {}
            (AddressSpace::Storage { access }, Some(b)) if b.group == 0 && unused.remove(&b.binding) => {
                let bound = dispatch.bindings[b.binding as usize - 1].access;
                let expected = match bound {
                    Access::Read => Some(StorageAccess::LOAD),
                    Access::ReadWrite => Some(StorageAccess::LOAD | StorageAccess::STORE),
                    Access::Texture(_) => None,
                };
                ensure(Some(access) == expected, || {
                    format!("{name} at binding {} is {access:?}, bound as {bound:?}", b.binding)
                })?;
            }
            (AddressSpace::Handle, Some(b)) if b.group == 0 && unused.remove(&b.binding) => {
                let bound = dispatch.bindings[b.binding as usize - 1].access;
                let class = match module.types[variable.ty].inner {
                    TypeInner::Image { class, .. } => Some(class),
                    _ => None,
                };
                let read_only = matches!(
                    class,
                    Some(naga::ImageClass::Storage { access, .. }) if access == StorageAccess::LOAD
                );
                let fits = matches!(bound, Access::Texture(_)) && read_only;
                ensure(fits, || format!("{name} at binding {} is a handle, bound as {bound:?}", b.binding))?;
            }
            (space, binding) => return Err(format!("{name} ({space:?}, {binding:?}) is not bound")),
        }
    }
    ensure(unused.is_empty(), || format!("bindings {unused:?} are bound but not used"))
}

/// Workgroup size and workgroup memory are within the device's limits.
fn check_limits(module: &Module, info: &ModuleInfo, entry: usize, caps: &Caps) -> Result<(), String> {
    let invocations: u32 = module.entry_points[entry].workgroup_size.iter().product();
    ensure(invocations <= caps.max_invocations, || format!("{invocations} invocations in a workgroup"))?;
    // What every device has.
    let of_textures = |v: &&GlobalVariable| matches!(module.types[v.ty].inner, TypeInner::Image { .. });
    let textures = module.global_variables.iter().map(|(_, v)| v).filter(of_textures).count();
    ensure(textures <= 4, || format!("{textures} textures"))?;
    let memory: u32 = (module.global_variables.iter())
        .filter(|(handle, v)| v.space == AddressSpace::WorkGroup && !info.get_entry_point(entry)[*handle].is_empty())
        .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()))
        .sum();
    ensure(memory <= caps.max_workgroup_memory, || format!("{memory} bytes of workgroup memory"))
}

/// The variant in all three languages, with the options wgpu would use.
fn translate(module: &Module, info: &ModuleInfo, dispatch: &Dispatch, caps: &Caps) -> Result<(), String> {
    let entry = dispatch.kernel.entry;
    let stage = Some((ShaderStage::Compute, entry.to_owned()));
    let count = dispatch.bindings.len() as u32 + 1;
    let bindings = || (0..count).map(|binding| (binding, ResourceBinding { group: 0, binding }));

    let options = spv::Options {
        lang_version: if dispatch.kernel.subgroups { (1, 3) } else { (1, 0) },
        fake_missing_bindings: false,
        binding_map: bindings()
            .map(|(binding, at)| (at, spv::BindingInfo { descriptor_set: 0, binding, binding_array_size: None }))
            .collect(),
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| format!("SPIR-V: {e}"))?;

    for lang_version in [(2, 4), (3, 0)] {
        let access = |binding: u32| dispatch.bindings.get((binding as usize).wrapping_sub(1)).map(|b| b.access);
        let resources = bindings()
            .map(|(binding, at)| {
                let slot = Some(binding as u8);
                let target = match access(binding) {
                    Some(Access::Texture(_)) => msl::BindTarget { texture: slot, ..Default::default() },
                    access => {
                        let mutable = access == Some(Access::ReadWrite);
                        msl::BindTarget { buffer: slot, mutable, ..Default::default() }
                    }
                };
                (at, target)
            })
            .collect();
        let resources =
            msl::EntryPointResources { resources, immediates_buffer: None, sizes_buffer: Some(count as u8) };
        let options = msl::Options {
            lang_version,
            per_entry_point_map: [(entry.to_owned(), resources)].into(),
            fake_missing_bindings: false,
            ..Default::default()
        };
        let pipeline = msl::PipelineOptions { entry_point: stage.clone(), ..Default::default() };
        let (_, translated) =
            msl::write_string(module, info, &options, &pipeline).map_err(|e| format!("MSL {lang_version:?}: {e}"))?;
        if let Some(Err(e)) = translated.entry_point_names.iter().find(|name| name.is_err()) {
            return Err(format!("MSL {lang_version:?}: {e}"));
        }
    }

    // Naga writes no cooperative matrices in HLSL, and wgpu does not offer them on DirectX.
    if dispatch.kernel.matrices.is_some() {
        return Ok(());
    }
    let target = |binding| hlsl::BindTarget { register: binding, ..Default::default() };
    let options = hlsl::Options {
        shader_model: if caps.f16 { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 },
        binding_map: bindings().map(|(binding, at)| (at, target(binding))).collect(),
        fake_missing_bindings: false,
        special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: stage };
    let mut out = String::new();
    let translated =
        hlsl::Writer::new(&mut out, &options, &pipeline).write(module, info, None).map_err(|e| format!("HLSL: {e}"))?;
    if let Some(Err(e)) = translated.entry_point_names.iter().find(|name| name.is_err()) {
        return Err(format!("HLSL: {e}"));
    }
    Ok(())
}

/// The shader files of a folder: names and texts.
fn shader_files(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, String)> = std::fs::read_dir(&folder)
        .expect("the shader folder")
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "wgsl"))
        .map(|path| {
            let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("a readable shader"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Shaders stay small enough to read, and every binding of a tensor says its shape.
#[test]
fn shaders_are_readable() {
    for (file, text) in [shader_files("shaders"), shader_files("shaders/lib")].concat() {
        let lines = text.lines().count();
        assert!(lines <= 300, "{file} has {lines} lines; split it");
        for line in text.lines().filter(|line| line.contains("var<storage")) {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            assert!(comment.contains('['), "{file}: no shape comment on: {line}");
        }
    }
}
