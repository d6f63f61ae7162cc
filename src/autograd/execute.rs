//! Running a plan: everything is built once, then the same launches are encoded again every step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::plan::share;
use super::{Arena, Group, Memory, PendingGroup, Plan, PlannedDispatch, PlannedExchange, Slot, Storage};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Buffer, Gpu, PendingRead, Recorded, Usage, Work};
use crate::tensor::{HostTensor, TensorType};

/// What the plans of a session have in common on the device: the persistent tensors, by name, and the buffers that the
/// plans, which run one after another, use in turns.
#[derive(Debug, Default)]
pub struct Store {
    entries: BTreeMap<String, (TensorType, Buffer)>,
    /// As long as one of them holds it.
    slots: Vec<Weak<Buffer>>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer of a variable, allocated (and zero) at first use.
    ///
    /// # Errors
    /// [`Kind::Shape`] if it exists with another type; [`Kind::OutOfMemory`].
    pub fn ensure(&mut self, gpu: &Gpu, name: &str, ty: &TensorType) -> Result<Buffer> {
        if let Some((have, buffer)) = self.entries.get(name) {
            if have != ty {
                return Err(Error::new(Kind::Shape, format!("variable '{name}' is {have}, not {ty}")));
            }
            return Ok(buffer.clone());
        }
        let buffer = gpu.allocate(name, ty.bytes(), Usage::Storage)?;
        self.entries.insert(name.to_owned(), (ty.clone(), buffer.clone()));
        Ok(buffer)
    }

    /// The buffer that variables share: (name, type, first byte) each. It is allocated (and zero) at first use.
    ///
    /// # Errors
    /// [`Kind::Internal`] if some of them exist and do not lie like that: the plan with the most bundles comes first;
    /// [`Kind::OutOfMemory`].
    fn ensure_arena(&mut self, gpu: &Gpu, members: &[(&str, &TensorType, u64)], bytes: u64) -> Result<Buffer> {
        let existing = members.iter().find_map(|(name, _, at)| Some((self.entries.get(*name)?.1.clone(), *at)));
        let arena = match existing {
            Some((member, at)) => member.around(at, bytes).ok_or_else(|| {
                Error::new(Kind::Internal, "variables that are to lie side by side were allocated one by one")
                    .next("of the plans that share a store, build the one that trains first")
            })?,
            None => gpu.allocate("arena", bytes, Usage::Storage)?,
        };
        for &(name, ty, at) in members {
            let buffer = arena.part(at, ty.bytes());
            match self.entries.get(name) {
                Some((_, have)) if *have == buffer => {}
                Some(_) => {
                    let message = format!("variable '{name}' lies elsewhere than beside the others of its kind");
                    return Err(Error::new(Kind::Internal, message));
                }
                None => {
                    self.entries.insert(name.to_owned(), (ty.clone(), buffer));
                }
            }
        }
        Ok(arena)
    }

    /// The buffers that hold a plan's slots. Those of other plans may be among them, but not between guard zones: what is
    /// behind a tensor would then be another plan's.
    fn ensure_slots(&mut self, gpu: &Gpu, slots: &[Slot]) -> Result<Vec<Arc<Buffer>>> {
        let allocate = |bytes: u64| gpu.allocate("slot", bytes, Usage::Scratch).map(Arc::new);
        if gpu.has_guards() {
            return slots.iter().map(|slot| allocate(slot.bytes)).collect();
        }
        let mut held: Vec<Arc<Buffer>> = self.slots.iter().filter_map(Weak::upgrade).collect();
        let mut sizes: Vec<u64> = held.iter().map(|buffer| buffer.bytes()).collect();
        let places = share(slots, &mut sizes);
        for &bytes in &sizes[held.len()..] {
            held.push(allocate(bytes)?);
        }
        self.slots = held.iter().map(Arc::downgrade).collect();
        let places = places.into_iter().zip(slots);
        places.map(|(at, slot)| at.map_or_else(|| allocate(slot.bytes), |at| Ok(Arc::clone(&held[at])))).collect()
    }

    /// The names and types of all variables, sorted by name.
    pub fn types(&self) -> impl Iterator<Item = (&str, &TensorType)> {
        self.entries.iter().map(|(name, (ty, _))| (name.as_str(), ty))
    }

    pub(super) fn entry(&self, name: &str) -> Result<&(TensorType, Buffer)> {
        self.entries.get(name).ok_or_else(|| Error::new(Kind::Internal, format!("there is no variable '{name}'")))
    }

    /// Overwrites a variable with the words of `data`.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there is no such variable, [`Kind::Shape`] if `data` has another size.
    pub fn write_bytes(&self, gpu: &Gpu, name: &str, data: &[u8]) -> Result<()> {
        let (ty, buffer) = self.entry(name)?;
        if data.len() as u64 != ty.bytes() {
            return Err(Error::new(Kind::Shape, format!("variable '{name}' holds {ty}, not {} bytes", data.len())));
        }
        gpu.upload(buffer, data);
        Ok(())
    }

    /// Overwrites a float variable; one in f16 with rounded values.
    ///
    /// # Errors
    /// As [`write_bytes`](Self::write_bytes).
    pub fn write(&self, gpu: &Gpu, name: &str, tensor: &HostTensor) -> Result<()> {
        self.write_bytes(gpu, name, &self.entry(name)?.0.dtype.encode(tensor.data()))
    }

    /// Reads a variable back.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there is no such variable; device errors.
    pub fn read_bytes(&self, gpu: &Gpu, name: &str) -> Result<Vec<u8>> {
        gpu.download(&self.entry(name)?.1)
    }

    /// Reads a float variable back.
    ///
    /// # Errors
    /// As [`read_bytes`](Self::read_bytes).
    pub fn read(&self, gpu: &Gpu, name: &str) -> Result<HostTensor> {
        let ty = &self.entry(name)?.0;
        Ok(HostTensor::new(ty.shape.clone(), ty.dtype.decode(&self.read_bytes(gpu, name)?)))
    }
}

/// The time one launch took, with what it was for.
#[derive(Debug, Clone)]
pub struct KernelProfile {
    /// The op.
    pub op: &'static str,
    /// The layer.
    pub scope: String,
    /// Shader and entry point.
    pub kernel: String,
    /// Seconds on the device.
    pub seconds: f64,
    /// Cost in principle.
    pub work: Work,
    /// Whether it multiplies cooperative matrices.
    pub matrices: bool,
}

/// A plan on a device, ready to run any number of times without allocating anything.
pub struct Executable {
    plan: Plan,
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
    /// Held so that the next plan of the session may share them.
    _slots: Vec<Arc<Buffer>>,
    preparation: Vec<Recorded>,
    /// Whether the preparation was submitted since the variables last changed.
    prepared: AtomicBool,
    recorded: Vec<Recorded>,
    /// What ranks put together at each exchange of the plan, with the buffers through which it is read.
    exchanged: Vec<Vec<(Buffer, Buffer)>>,
    staging: Vec<Vec<Buffer>>,
    turn: usize,
}

/// Outputs on their way to the host.
pub struct PendingOutputs {
    reads: Vec<PendingRead>,
}

/// How the numbers of this rank become those of all ranks at an exchange.
pub type Meet<'a> = dyn FnMut(&PlannedExchange, &[f32]) -> Result<Vec<f32>> + 'a;

/// Variables that go to the host in the middle of a run of a plan.
pub struct Early<'a> {
    /// Groups of them, each with the number of launches behind which it is complete, in that order.
    pub groups: &'a [(usize, &'a Group)],
    /// Gets each group when it is on its way.
    pub started: &'a mut dyn FnMut(PendingGroup),
}

/// Steps whose outputs may be on their way to the host at the same time.
pub(super) const IN_FLIGHT: usize = 3;

impl Executable {
    /// Allocates the plan's buffers and builds its pipelines. Variables are taken from `store`, where they lie as the first
    /// plan wanted them; so of the plans that share a store the one that trains comes first. They share slots too: what a
    /// step of one leaves in them is gone when another has run.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`], [`Kind::Shader`], [`Kind::DeviceLost`]; [`Kind::Internal`] if variables lie otherwise than the
    /// plan needs them.
    pub fn new(gpu: &Gpu, plan: Plan, store: &mut Store) -> Result<Self> {
        let mut arenas = vec![];
        for arena in &plan.arenas {
            arenas.push(match &arena.variables {
                None => gpu.allocate("arena", arena.bytes, Usage::Storage)?,
                Some(variables) => {
                    let members = variables.iter().zip(&arena.members).map(|(&v, &(at, _))| {
                        let variable = &plan.variables[v];
                        (variable.name.as_str(), &variable.ty, at)
                    });
                    store.ensure_arena(gpu, &members.collect::<Vec<_>>(), arena.bytes)?
                }
            });
        }
        let member = |arena: &Arena, buffer: &Buffer| -> Vec<Buffer> {
            arena.members.iter().map(|&(at, bytes)| buffer.part(at, bytes)).collect()
        };
        let members: Vec<Vec<Buffer>> = plan.arenas.iter().zip(&arenas).map(|(a, b)| member(a, b)).collect();
        let variables = plan.variables.iter().map(|v| store.ensure(gpu, &v.name, &v.ty)).collect::<Result<Vec<_>>>()?;
        let allocate = |label: &str, bytes: u64| gpu.allocate(label, bytes, Usage::Storage);
        let inputs = plan.inputs.iter().map(|(name, ty)| allocate(name, ty.bytes())).collect::<Result<Vec<_>>>()?;
        let scratch = |label: &str, bytes: u64| gpu.allocate(label, bytes, Usage::Scratch);
        let held = store.ensure_slots(gpu, &plan.slots)?;
        let slots: Vec<Buffer> =
            held.iter().zip(&plan.slots).map(|(buffer, slot)| buffer.part(0, slot.bytes)).collect();
        let own = (plan.outputs.iter().zip(&plan.output_storage).enumerate())
            .map(|(i, ((_, ty), &at))| scratch("output", if at == Storage::Output(i) { ty.bytes() } else { 4 }))
            .collect::<Result<Vec<_>>>()?;
        let buffer = |storage: Storage| match storage {
            Storage::Variable(i) => &variables[i],
            Storage::Input(i) => &inputs[i],
            Storage::Output(i) => &own[i],
            Storage::Slot(i) => &slots[i],
            Storage::Arena(i) => &arenas[i],
            Storage::Member(i, m) => &members[i][m],
        };
        let textures = gpu.allocate_textures(&plan.textures)?;
        let record = |d: &PlannedDispatch| {
            let buffers: Vec<&Buffer> = d.storage.iter().map(|&s| buffer(s)).collect();
            gpu.record(&d.dispatch, &buffers, &textures)
        };
        gpu.build_pipelines(plan.preparation.iter().chain(&plan.dispatches).map(|d| &d.dispatch))?;
        let preparation = plan.preparation.iter().map(record).collect::<Result<Vec<_>>>()?;
        let recorded = plan.dispatches.iter().map(record).collect::<Result<Vec<_>>>()?;
        let outputs = plan.output_storage.iter().map(|&s| buffer(s).clone()).collect();
        let staging = (0..IN_FLIGHT)
            .map(|_| {
                let outputs = plan.outputs.iter();
                outputs.map(|(_, ty)| gpu.allocate("readback", ty.bytes(), Usage::Readback)).collect()
            })
            .collect::<Result<Vec<_>>>()?;
        let exchanged = |exchange: &PlannedExchange| {
            let tensors = exchange.storage.iter().map(|&(at, elements)| {
                let own = buffer(at).part(0, (elements * size_of::<f32>()) as u64);
                let staging = gpu.allocate("exchange", own.bytes(), Usage::Readback)?;
                Ok((own, staging))
            });
            tensors.collect::<Result<Vec<_>>>()
        };
        let exchanged = plan.exchanges.iter().map(exchanged).collect::<Result<_>>()?;
        let prepared = AtomicBool::new(false);
        Ok(Self { plan, inputs, outputs, _slots: held, preparation, prepared, recorded, exchanged, staging, turn: 0 })
    }

    /// The memory it takes alone: see [`Memory::in_turns`].
    pub fn memory(&self) -> Memory {
        self.plan.memory
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Uploads an input for the next step.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there is no such input, [`Kind::Shape`] if the size is another.
    pub fn set_input(&self, gpu: &Gpu, name: &str, data: &[u8]) -> Result<()> {
        let found = self.plan.inputs.iter().position(|(n, _)| n == name);
        let i = found.ok_or_else(|| Error::new(Kind::Internal, format!("the graph has no input '{name}'")))?;
        let ty = &self.plan.inputs[i].1;
        if data.len() as u64 != ty.bytes() {
            return Err(Error::new(Kind::Shape, format!("input '{name}' takes {ty}, not {} bytes", data.len())));
        }
        gpu.upload(&self.inputs[i], data);
        Ok(())
    }

    /// Encodes and submits one step; does not wait.
    pub fn run(&self, gpu: &Gpu) {
        self.prepare(gpu);
        gpu.submit(&self.recorded);
    }

    /// What was computed beforehand from the variables is out of date: it will be computed again before the next step.
    /// Only a plan made by [`Plan::preparing`] has such things.
    pub fn variables_changed(&self) {
        self.prepared.store(false, Ordering::Relaxed);
    }

    fn prepare(&self, gpu: &Gpu) {
        if !self.prepared.swap(true, Ordering::Relaxed) && !self.preparation.is_empty() {
            gpu.submit(&self.preparation);
        }
    }

    /// The launches as they are submitted, in the plan's order: for benchmarks, which run some of them alone.
    pub fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }

    /// Runs one step with every kernel timed.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] without timestamp queries; device errors.
    pub fn run_timed(&self, gpu: &Gpu) -> Result<Vec<KernelProfile>> {
        self.prepare(gpu);
        let times = gpu.submit_timed(&self.recorded)?;
        Ok(self
            .plan
            .dispatches
            .iter()
            .zip(times)
            .map(|(d, time)| KernelProfile {
                op: d.op,
                scope: d.scope.clone(),
                kernel: d.dispatch.kernel.label(),
                seconds: time.seconds,
                work: d.dispatch.work,
                matrices: d.dispatch.kernel.matrices.is_some(),
            })
            .collect())
    }

    /// As [`run`](Self::run), and all outputs start on their way to the host. At most three steps may be under way at
    /// once; collect the oldest first.
    pub fn run_and_read(&mut self, gpu: &Gpu) -> PendingOutputs {
        self.run_and_read_from(gpu, 0, self.recorded.len())
    }

    /// As [`run_and_read`](Self::run_and_read), for one part of a batch: without what closes the step.
    pub fn run_part_and_read(&mut self, gpu: &Gpu) -> PendingOutputs {
        self.run_and_read_from(gpu, 0, self.plan.closing)
    }

    /// As [`run_part_and_read`](Self::run_part_and_read), for one of several ranks: stops at each exchange of the plan, where
    /// `meet` returns the numbers of all ranks, and waits for it. What is `early` starts on its way to the host there and then.
    ///
    /// # Errors
    /// Those of `meet`, which must return as many numbers as it gets; device errors.
    pub fn run_part_with_others(
        &mut self,
        gpu: &Gpu,
        Early { groups, started }: Early<'_>,
        meet: &mut Meet<'_>,
    ) -> Result<PendingOutputs> {
        self.prepare(gpu);
        let mut from = 0;
        let mut groups = groups.iter().copied().peekable();
        for (exchange, tensors) in self.plan.exchanges.iter().zip(&self.exchanged) {
            while let Some((behind, group)) = groups.next_if(|&(behind, _)| behind <= exchange.before) {
                started(group.start(gpu, &self.recorded[from..behind]));
                from = behind;
            }
            let copies: Vec<(&Buffer, &Buffer)> = tensors.iter().map(|(own, staging)| (own, staging)).collect();
            let mut numbers = vec![];
            for read in gpu.submit_and_read(&self.recorded[from..exchange.before], &copies) {
                numbers.extend_from_slice(&bytemuck::pod_collect_to_vec::<u8, f32>(&gpu.finish_read(read)?));
            }
            let all = meet(exchange, &numbers)?;
            if all.len() != numbers.len() {
                let what = format!("{} numbers came back for {}", all.len(), numbers.len());
                return Err(Error::new(Kind::Internal, what).at(exchange.about()));
            }
            let mut rest = &all[..];
            for ((own, _), &(_, elements)) in tensors.iter().zip(&exchange.storage) {
                let (numbers, others) = rest.split_at(elements);
                gpu.upload(own, bytemuck::cast_slice(numbers));
                rest = others;
            }
            from = exchange.before;
        }
        for (behind, group) in groups {
            started(group.start(gpu, &self.recorded[from..behind]));
            from = behind;
        }
        Ok(self.run_and_read_from(gpu, from, self.plan.closing))
    }

    fn run_and_read_from(&mut self, gpu: &Gpu, first: usize, end: usize) -> PendingOutputs {
        self.prepare(gpu);
        let copies: Vec<(&Buffer, &Buffer)> = self.outputs.iter().zip(&self.staging[self.turn]).collect();
        self.turn = (self.turn + 1) % IN_FLIGHT;
        PendingOutputs { reads: gpu.submit_and_read(&self.recorded[first..end], &copies) }
    }

    /// What closes a step whose batch came in parts; does not wait.
    pub fn run_closing(&self, gpu: &Gpu) {
        gpu.submit(&self.recorded[self.plan.closing..]);
    }

    /// Collects outputs, one vector of bytes for each.
    ///
    /// # Errors
    /// Device errors.
    pub fn finish_read(&self, gpu: &Gpu, pending: PendingOutputs) -> Result<Vec<Vec<u8>>> {
        pending.reads.into_iter().map(|r| gpu.finish_read(r)).collect()
    }

    /// Reads output number `i` as floats (integers keep their bits) and waits for it.
    ///
    /// # Errors
    /// Device errors.
    pub fn read_output(&self, gpu: &Gpu, i: usize) -> Result<HostTensor> {
        let ty = &self.plan.outputs[i].1;
        Ok(HostTensor::new(ty.shape.clone(), ty.dtype.decode(&gpu.download(&self.outputs[i])?)))
    }

    /// How many steps' outputs may be under way at once.
    pub const IN_FLIGHT: usize = IN_FLIGHT;
}
