//! The device: opened with the adapter's own limits, and every failure turned into one clear error.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapter::{self, AdapterSummary, Caps, Feature};
use super::fault::{Fault, Trap};
use super::guard::Guards;
use super::limits::Limits;
use super::pipeline::PipelineStore;
use super::trust::{SelfTest, Trust};
use crate::error::{Error, Kind, Result};

/// How to open a device.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Index or part of a name; the best adapter if `None`.
    pub adapter: Option<String>,
    /// Features that must be there: opening fails without them.
    pub require: Vec<Feature>,
    /// Features not to use even where present.
    pub without: Vec<Feature>,
    /// Build shaders with the driver-independent bounds and loop checks that kernels do without.
    pub checked: bool,
    /// Put guard zones around all tensors, for [`Gpu::check_guards`]: slow, for tests.
    pub guards: bool,
    /// Folder for compiled pipelines; nothing is kept if `None`.
    pub pipeline_cache: Option<PathBuf>,
    /// Submissions that a sequence of launches is cut into: the device begins with the first while the host still
    /// encodes the rest. 0 counts as 1.
    pub submissions: usize,
    /// Limits below the adapter's own.
    pub limits: Limits,
    /// Whether kernels are tested before they are first used.
    pub self_test: SelfTest,
    /// A failure that is to happen: for tests.
    pub fault: Option<Fault>,
}

/// Problems reported by the driver outside of any call that could return them.
#[derive(Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    first: Mutex<Option<(Kind, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open device with its queue.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: PipelineStore,
    pub(super) checked: bool,
    pub(super) guards: Option<Guards>,
    pub(super) timestamps: bool,
    pub(super) submissions: usize,
    pub(super) trap: Trap,
    limits: Limits,
    pub(super) trust: Trust,
    faults: Arc<Faults>,
    caps: Caps,
    summary: AdapterSummary,
    // Dropped last: on some platforms devices must not outlive the instance.
    instance: wgpu::Instance,
}

impl Gpu {
    /// Opens the adapter that `options` name, with its own limits, unless they say otherwise, and every optional feature it has.
    ///
    /// # Errors
    /// [`Kind::NoAdapter`] if none matches, [`Kind::Usage`] if the name fits several or a limit is too low,
    /// [`Kind::Unsupported`] if a required feature is missing, a limit is above the adapter's own or the driver refuses
    /// the device.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        let instance = adapter::instance();
        let (index, adapter) = adapter::choose(adapter::enumerate(&instance), options.adapter.as_deref())?;
        let mut summary = AdapterSummary::of(index, &adapter);
        if let Some(missing) = options.require.iter().find(|f| !summary.features.contains(f)) {
            let has = summary.features.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ");
            return Err(Error::new(Kind::Unsupported, format!("the adapter does not offer '{}'", missing.name()))
                .at(&summary.name)
                .next(format!("it offers: {has}; choose another with --adapter (see `lesion-gpu devices`)")));
        }
        summary.features.retain(|f| !options.without.contains(f));
        if !summary.features.contains(&Feature::CooperativeMatrix) {
            summary.matrices = None;
        }
        let features = summary.features.iter().fold(wgpu::Features::empty(), |set, f| set | f.wgpu());
        let experimental = match summary.features.contains(&Feature::CooperativeMatrix) {
            // SAFETY: wgpu warns that experimental features may hold bugs. Ours is cooperative matrices, which no kernel
            // uses before they were proven on the device.
            #[expect(unsafe_code, reason = "experimental features of wgpu")]
            true => unsafe { wgpu::ExperimentalFeatures::enabled() },
            false => wgpu::ExperimentalFeatures::disabled(),
        };
        let limits = options.limits.of(&adapter.limits()).map_err(|e| e.at(&summary.name))?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("lesion-gpu"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            experimental_features: experimental,
            ..Default::default()
        }))
        .map_err(|e| {
            Error::new(Kind::Unsupported, format!("the driver refused to open a device: {e}"))
                .at(&summary.name)
                .next("update the graphics driver, or choose another adapter with --adapter")
        })?;
        let faults = Arc::new(Faults::default());
        let on_lost = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&on_lost.lost).get_or_insert(message);
            }
        });
        let on_error = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&on_error.first).get_or_insert((kind_of(&error), error.to_string()));
        }));
        let caps = Caps::of(summary.class, features, &limits, &adapter.get_info());
        summary.caps = caps.clone();
        let pipelines = PipelineStore::open(&device, &adapter.get_info(), options.pipeline_cache.as_deref());
        let timestamps = features.contains(wgpu::Features::TIMESTAMP_QUERY);
        let self_test = match (&options.fault, &options.self_test) {
            // What other shaders have shown is none of this device's business, and the other way round.
            (Some(Fault::Shader { .. }), SelfTest::On(_)) => &SelfTest::On(None),
            (_, self_test) => self_test,
        };
        let trust = Trust::open(self_test, &summary, options.checked);
        let mut gpu = Self {
            device,
            queue,
            pipelines,
            checked: options.checked,
            guards: options.guards.then(Guards::default),
            timestamps,
            submissions: options.submissions.max(1),
            trap: Trap::default(),
            limits: options.limits.clone(),
            trust,
            faults,
            caps,
            summary,
            instance,
        };
        gpu.caps.checked = options.checked;
        gpu.caps.textures = gpu.texture_loads()?;
        gpu.summary.caps.textures = gpu.caps.textures;
        // Only now, so that what opening takes is no part of the count.
        gpu.trap = Trap::new(options.fault.clone());
        Ok(gpu)
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Buffers, textures, their views, bind groups and queries that exist on the device: for tests of what is left behind.
    /// `None` where the platform does not count them.
    pub fn objects(&self) -> Option<usize> {
        let hub = self.instance.generate_report()?.hub;
        let kinds =
            [hub.buffers, hub.textures, hub.texture_views, hub.bind_groups, hub.query_sets, hub.command_buffers];
        Some(kinds.iter().map(|kind| kind.num_allocated).sum())
    }

    /// Lets kernels use the cooperative matrices that the adapter offers, or forbids it again: until someone has compared
    /// their products with others, [`caps`](Self::caps) says there are none.
    pub fn trust_matrices(&mut self, trusted: bool) {
        self.caps.matrices = self.summary.matrices.filter(|_| trusted);
        self.summary.caps.matrices = self.caps.matrices;
    }

    /// The adapter it was opened on, with the features in use.
    pub fn adapter(&self) -> &AdapterSummary {
        &self.summary
    }

    /// The limits that it was opened with below those of the adapter.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Any fault the driver has reported since the last call.
    ///
    /// # Errors
    /// [`Kind::DeviceLost`], [`Kind::OutOfMemory`] or [`Kind::Internal`].
    pub fn check(&self) -> Result<()> {
        let lost = lock(&self.faults.lost).clone();
        let mut first = lock(&self.faults.first);
        // A submission that there is no memory for costs the device, and that it is gone is then no more than a symptom.
        let fault = if lost.is_some() { first.clone() } else { first.take() };
        match (fault, lost) {
            (Some((Kind::OutOfMemory, message)), _) => Err(self.out_of_memory(&message)),
            (_, Some(message)) => Err(self.lost(&message)),
            (Some((kind, message)), None) => Err(Error::new(kind, message).at(&self.summary.name)),
            (None, None) => Ok(()),
        }
    }

    /// Whether the device is gone, for whatever reason: it will do nothing more.
    pub fn is_lost(&self) -> bool {
        lock(&self.faults.lost).is_some()
    }

    /// Notes that the device is gone, for this reason.
    pub(super) fn report(&self, kind: Kind, message: &str) {
        lock(&self.faults.lost).get_or_insert_with(|| message.to_owned());
        if kind == Kind::OutOfMemory {
            lock(&self.faults.first).get_or_insert_with(|| (kind, message.to_owned()));
        }
    }

    /// Waits until everything submitted so far has run.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn wait(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(drop).map_err(|e| self.lost(&e.to_string()))
    }

    /// Waits until a submission has run.
    pub(super) fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        self.check()?;
        polled.map(drop).map_err(|e| self.lost(&e.to_string()))
    }

    /// Lets the driver make progress without waiting, so that callbacks run.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn poll(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Poll);
        self.check()?;
        polled.map(drop).map_err(|e| self.lost(&e.to_string()))
    }

    /// Runs `make` and turns any error of kind `filter` it provokes into ours.
    pub(super) fn scoped<T>(&self, filter: wgpu::ErrorFilter, make: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        let scope = self.device.push_error_scope(filter);
        let made = make();
        match pollster::block_on(scope.pop()) {
            None => Ok(made),
            Some(error) => Err(error),
        }
    }

    pub(super) fn lost(&self, message: &str) -> Error {
        Error::new(Kind::DeviceLost, format!("the device was lost: {message}")).at(&self.summary.name).next(
            "the driver reset it, usually after a hang or because another program used it up; \
             try again, with a smaller --batch if it happens again",
        )
    }

    pub(super) fn out_of_memory(&self, message: &str) -> Error {
        Error::new(Kind::OutOfMemory, format!("the device is out of memory: {message}"))
            .at(&self.summary.name)
            .next("use a smaller --batch or --size, or close other programs that use this device")
    }
}

fn kind_of(error: &wgpu::Error) -> Kind {
    match error {
        wgpu::Error::OutOfMemory { .. } => Kind::OutOfMemory,
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Kind::Internal,
    }
}
