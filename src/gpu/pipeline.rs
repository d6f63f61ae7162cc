//! Pipelines: built once per kernel variant, all of them before the first step, side by side.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::{Access, Buffer, Dispatch, Gpu, Kernel, PendingRead, Recorded, Texture, Textures, Usage};
use crate::error::{Error, Kind, Result};

/// A compiled kernel variant.
pub struct Pipeline {
    pub(super) inner: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

type Key = (Kernel, Option<super::UniformBlock>, Vec<Access>);

/// What tells the pipelines of dispatches apart.
fn key(dispatch: &Dispatch) -> Key {
    // How much is copied to a texture is no part of a kernel.
    let access = |access| match access {
        Access::Texture(texture) => Access::Texture(Texture { elements: 0, ..texture }),
        access => access,
    };
    let accesses = dispatch.bindings.iter().map(|b| access(b.access)).collect();
    (dispatch.kernel.clone(), dispatch.specialised.then(|| dispatch.parameters.clone()), accesses)
}

/// Bytes of stack of a thread that builds pipelines: as many as a main thread has, for what recurses over shaders.
const STACK: usize = 8 << 20;

/// All pipelines of a device, and the driver's cache of compiled ones on disk.
pub(super) struct PipelineStore {
    built: Mutex<HashMap<Key, Arc<Pipeline>>>,
    cache: Option<wgpu::PipelineCache>,
    file: Option<PathBuf>,
}

impl PipelineStore {
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: Option<&Path>) -> Self {
        let key = wgpu::util::pipeline_cache_key(info);
        let enabled = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        let file = match (folder, key) {
            (Some(folder), Some(key)) if enabled => {
                // The driver's version is part of the name: a new driver starts a new cache.
                let driver = blake3::hash(format!("{} {}", info.driver, info.driver_info).as_bytes());
                Some(folder.join(format!("{key}-{}", &driver.to_hex()[..12])))
            }
            _ => None,
        };
        let data = file.as_ref().and_then(|f| std::fs::read(f).ok()).and_then(unseal);
        // SAFETY: the data was returned by `get_data` for a device of the same key and driver: its checksum was
        // just verified, and `fallback` makes the driver ignore what it does not recognise.
        #[expect(unsafe_code, reason = "wgpu hands the driver's own data back to the driver")]
        let cache = enabled.then(|| unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("lesion-gpu"),
                data: data.as_deref(),
                fallback: true,
            })
        });
        Self { built: Mutex::default(), cache, file }
    }

    fn built(&self) -> MutexGuard<'_, HashMap<Key, Arc<Pipeline>>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the driver's cache to disk. Failing to do so costs only time at the next start, so it is silent.
    fn save(&self) {
        if let (Some(cache), Some(file)) = (&self.cache, &self.file)
            && let (Some(data), Some(folder)) = (cache.get_data(), file.parent())
        {
            let write = || -> std::io::Result<()> {
                std::fs::create_dir_all(folder)?;
                let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
                std::io::Write::write_all(&mut temporary, &seal(data))?;
                temporary.persist(file)?;
                Ok(())
            };
            let _ = write();
        }
    }
}

/// Prefixes `data` with its BLAKE3 hash.
fn seal(data: Vec<u8>) -> Vec<u8> {
    let mut sealed = blake3::hash(&data).as_bytes().to_vec();
    sealed.extend(data);
    sealed
}

/// The data behind a correct hash, if it is one.
fn unseal(sealed: Vec<u8>) -> Option<Vec<u8>> {
    let (hash, data) = sealed.split_at_checked(32)?;
    (blake3::hash(data).as_bytes() == hash).then(|| data.to_vec())
}

impl Gpu {
    /// The pipeline of a dispatch, built now if it is new.
    ///
    /// # Errors
    /// [`Kind::Shader`] with the driver's or validator's message.
    pub fn pipeline(&self, dispatch: &Dispatch) -> Result<Arc<Pipeline>> {
        let key = key(dispatch);
        if let Some(pipeline) = self.pipelines.built().get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        // Without the lock: others are built meanwhile.
        let pipeline = Arc::new(self.build(dispatch)?);
        Ok(Arc::clone(self.pipelines.built().entry(key).or_insert(pipeline)))
    }

    /// Builds the pipelines of dispatches side by side: on most drivers a start is mainly that.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline).
    pub fn build_pipelines<'a>(&self, dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Result<()> {
        let mut seen = HashSet::new();
        let built = self.pipelines.built();
        let mut is_new = |key: Key| !built.contains_key(&key) && seen.insert(key);
        let new: Vec<&Dispatch> = dispatches.into_iter().filter(|dispatch| is_new(key(dispatch))).collect();
        drop(built);
        if new.len() < 2 {
            return Ok(());
        }
        let build = || new.par_iter().try_for_each(|dispatch| self.pipeline(dispatch).map(drop));
        // Without threads of its own they are built one by one, as they are asked for.
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(new.len());
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK)
            .build()
            .map_or(Ok(()), |threads| threads.install(build))
    }

    /// Keeps compiled pipelines on disk for the next start, where the driver supports that.
    pub fn save_pipelines(&self) {
        self.pipelines.save();
    }

    fn build(&self, dispatch: &Dispatch) -> Result<Pipeline> {
        let kernel = &dispatch.kernel;
        let label = kernel.label();
        let text = kernel.link(Some(&dispatch.parameters), dispatch.specialised);
        let text = self.trap.reads(kernel.source.file, &text);
        let mut entries = Vec::new();
        let mut entry = |binding: u32, ty: wgpu::BindingType| {
            entries.push(wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty,
                count: None,
            });
        };
        let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        if !dispatch.specialised {
            entry(0, buffer(wgpu::BufferBindingType::Uniform));
        }
        for (i, binding) in dispatch.bindings.iter().enumerate() {
            let ty = match binding.access {
                Access::Read => buffer(wgpu::BufferBindingType::Storage { read_only: true }),
                Access::ReadWrite => buffer(wgpu::BufferBindingType::Storage { read_only: false }),
                Access::Texture(texture) => texture.texel.binding_type(),
            };
            entry(i as u32 + 1, ty);
        }
        let checks =
            if self.checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() };
        let make = || {
            let source = wgpu::ShaderSource::Wgsl(text.as_ref().into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source };
            // SAFETY: kernels index inside their bindings and leave their loops: each is run with the checks on in
            // the test suite, over the same shapes.
            #[expect(unsafe_code, reason = "shaders without run-time checks")]
            let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&label),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let inner = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(kernel.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: self.pipelines.cache.as_ref(),
            });
            Pipeline { inner, layout }
        };
        let failed = |message: String| {
            Error::new(Kind::Shader, format!("a shader did not build on this driver: {message}"))
                .at(format!("shaders/{} on {}", kernel.source.file, self.adapter().name))
                .next("run `lesion-gpu doctor` and report its output; another --adapter may work meanwhile")
        };
        let validated = self.scoped(wgpu::ErrorFilter::Internal, || self.scoped(wgpu::ErrorFilter::Validation, make));
        let pipeline = validated.and_then(|inner| inner).map_err(|e| failed(e.to_string()))?;
        self.check()?;
        Ok(pipeline)
    }

    /// Resolves a dispatch: pipeline, parameter buffer, bind group and the copies that come first. `buffers` follow its
    /// bindings; what it reads from textures is copied from them to `textures`.
    ///
    /// # Errors
    /// As [`pipeline`](Self::pipeline) and [`allocate`](Self::allocate).
    pub fn record(&self, dispatch: &Dispatch, buffers: &[&Buffer], textures: &Textures) -> Result<Recorded> {
        let pipeline = self.pipeline(dispatch)?;
        let parameters = if dispatch.specialised {
            None
        } else {
            let buffer = self.allocate("parameters", dispatch.parameters.bytes.len() as u64, Usage::Uniform)?;
            self.upload(&buffer, &dispatch.parameters.bytes);
            Some(buffer)
        };
        let mut entries = Vec::with_capacity(buffers.len() + 1);
        if let Some(buffer) = &parameters {
            entries.push(wgpu::BindGroupEntry { binding: 0, resource: buffer.binding() });
        }
        let copied = textures.of(dispatch, buffers)?;
        for (i, buffer) in buffers.iter().enumerate() {
            // The planner has refused anything larger than the device can bind.
            let resource = match copied.iter().find(|(at, ..)| *at == i) {
                None => buffer.binding(),
                Some((.., view)) => wgpu::BindingResource::TextureView(view),
            };
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let bind_group = self
            .scoped(wgpu::ErrorFilter::Validation, || {
                self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(dispatch.kernel.entry),
                    layout: &pipeline.layout,
                    entries: &entries,
                })
            })
            .map_err(|e| Error::new(Kind::Internal, format!("bindings do not fit: {e}")).at(dispatch.kernel.label()))?;
        let copies = copied.into_iter().map(|(_, copy, _)| copy).collect();
        Ok(Recorded { pipeline, bind_group, workgroups: dispatch.workgroups, copies })
    }

    /// Encodes and submits a sequence of recorded dispatches.
    pub fn submit(&self, recorded: &[Recorded]) {
        self.submit_and_read(recorded, &[]);
    }

    /// Encodes and submits a sequence of recorded dispatches, and behind them copies of buffers to staging buffers
    /// that are not in use: pairs of source and staging buffer.
    pub fn submit_and_read(&self, recorded: &[Recorded], copies: &[(&Buffer, &Buffer)]) -> Vec<PendingRead> {
        let part = recorded.len().div_ceil(self.submissions).max(1);
        let mut parts = recorded.chunks(part).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            // Copies end a pass.
            for launches in part.chunk_by(|_, next| next.copies.is_empty()) {
                launches.iter().flat_map(|item| &item.copies).for_each(|copy| copy.encode(&mut encoder));
                let mut pass = encoder.begin_compute_pass(&Default::default());
                launches.iter().for_each(|item| item.encode(&mut pass));
            }
            if parts.peek().is_none() {
                return self.submit_copies(encoder, copies);
            }
            self.send(encoder.finish());
        }
    }
}

impl Recorded {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline.inner);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_damaged_cache_is_not_used() {
        let mut sealed = super::seal(vec![1, 2, 3]);
        assert_eq!(super::unseal(sealed.clone()), Some(vec![1, 2, 3]));
        sealed[33] ^= 1;
        assert_eq!(super::unseal(sealed), None);
        assert_eq!(super::unseal(vec![0; 5]), None);
    }
}
