//! The planner: from a tape to a fixed sequence of launches over a few reusable buffers. Needs no device.
//!
//! 1. Nodes that neither an output nor an update depends on are dropped, and neighbours fused (`fuse.rs`).
//! 2. Updates (optimizer steps) move to the earliest place where everything they read is ready and nobody still
//!    needs the old value, so that a gradient dies as soon as it was used.
//! 3. Updates element by element become a few launches over tensors that lie side by side (`bundle.rs`).
//! 4. Every other tensor gets a slot by liveness: largest first, into the smallest slot whose other tenants are dead
//!    meanwhile (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020, section 4.2:
//!    greedy by size). Slots are whole buffers because wgpu tracks usage per buffer: what a launch reads and what
//!    it writes never share one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::bundle::{Bundles, Step};
use super::execute::IN_FLIGHT;
use super::fuse::{fuse, live};
use super::{Arena, Candidates, Exchange, Lower, Lowered, Op, Origin, PlannedExchange, Tape, Tensor, Variable};
use crate::error::{Error, Kind, Result};
use crate::gpu::{Access, Caps, Dispatch, Gpu, Operand, TextureSizes, Usage};
use crate::tensor::TensorType;

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// Persistent tensor number.
    Variable(usize),
    /// Host-uploaded tensor number.
    Input(usize),
    /// A buffer of its own, kept until the next step.
    Output(usize),
    /// Reusable buffer number.
    Slot(usize),
    /// All of an arena.
    Arena(usize),
    /// A member of an arena that is not one of variables: arena number and member number.
    Member(usize, usize),
}

/// One launch of the plan.
#[derive(Debug, Clone)]
pub struct PlannedDispatch {
    /// The launch.
    pub dispatch: Dispatch,
    /// Where each of its bindings lies.
    pub storage: Vec<Storage>,
    /// The op it belongs to.
    pub op: &'static str,
    /// The layer it belongs to.
    pub scope: String,
}

/// Bytes on the device, known before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Parameters, running statistics, optimizer state.
    pub variables: u64,
    /// Inputs and outputs.
    pub io: u64,
    /// Reusable buffers: activations, gradients, scratch; and copies in textures.
    pub slots: u64,
    /// What the same tensors would take without reuse.
    pub without_reuse: u64,
}

impl Memory {
    /// The memory of plans that share a [`Store`](super::Store) and run in turns, in the order in which they are built:
    /// they share variables and slots.
    pub fn in_turns(plans: &[&Plan]) -> Self {
        let variables = variables_of(plans).values().sum();
        let (mut all, mut slots) = (Self { variables, ..Self::default() }, vec![]);
        for plan in plans {
            let own: u64 = plan.slots.iter().filter(|slot| !slot.kept).map(|slot| slot.bytes).sum();
            share(&plan.slots, &mut slots);
            all.io += plan.memory.io;
            all.slots += plan.memory.slots - own;
            all.without_reuse += plan.memory.without_reuse;
        }
        all.slots += slots.iter().sum::<u64>();
        all
    }

    /// All bytes.
    pub fn total(&self) -> u64 {
        self.variables + self.io + self.slots
    }
}

/// The bytes of each variable of plans that share a store.
fn variables_of<'a>(plans: &[&'a Plan]) -> BTreeMap<&'a str, u64> {
    plans.iter().flat_map(|plan| plan.variables.iter().map(|v| (v.name.as_str(), v.ty.bytes()))).collect()
}

/// A reusable buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its size.
    pub bytes: u64,
    /// Whether what lies in it is read again in the next step, so that no other plan may use it in between.
    pub kept: bool,
}

/// Which of the `buffers` of a session, whose sizes these are, each slot of a plan lies in: the smallest that is large enough,
/// as long as there is one; those that have to be allocated come to the end. `None` for what is kept, in a buffer of its own.
/// No two slots of a plan share one.
pub(super) fn share(slots: &[Slot], buffers: &mut Vec<u64>) -> Vec<Option<usize>> {
    let mut free: Vec<usize> = (0..buffers.len()).collect();
    free.sort_by_key(|&i| buffers[i]);
    let mut by_size: Vec<usize> = (0..slots.len()).filter(|&i| !slots[i].kept).collect();
    by_size.sort_by_key(|&i| std::cmp::Reverse(slots[i].bytes));
    let mut places = vec![None; slots.len()];
    for i in by_size {
        let fits = free.iter().position(|&b| buffers[b] >= slots[i].bytes);
        places[i] = Some(fits.map_or(buffers.len(), |at| free.remove(at)));
        if fits.is_none() {
            buffers.push(slots[i].bytes);
        }
    }
    places
}

/// A node whose kernels can be chosen by tuning.
#[derive(Debug, Clone)]
pub struct Tunable {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// Types of the inputs.
    pub inputs: Vec<TensorType>,
    /// Types of the outputs.
    pub outputs: Vec<TensorType>,
    /// What there is to choose from.
    pub candidates: Candidates,
}

/// A planned tape.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Launches that come once before the first step, and again after the variables have changed.
    pub preparation: Vec<PlannedDispatch>,
    /// Launches of a step, in order.
    pub dispatches: Vec<PlannedDispatch>,
    /// The first of those that come once for several parts of a batch (see [`in_two`](Self::in_two)); the number of
    /// launches where there are none.
    pub closing: usize,
    /// Where ranks that train together put numbers together, in order. All are before `closing`, or there is no closing.
    pub exchanges: Vec<PlannedExchange>,
    /// The reusable buffers.
    pub slots: Vec<Slot>,
    /// Textures that launches copy to what they read from there.
    pub textures: TextureSizes,
    /// Buffers that several tensors share for good.
    pub arenas: Vec<Arena>,
    /// Host-uploaded tensors.
    pub inputs: Vec<(String, TensorType)>,
    /// Persistent tensors in use, numbered as on the tape.
    pub variables: Vec<Variable>,
    /// Tensors the host may read after a step.
    pub outputs: Vec<(Tensor, TensorType)>,
    /// Where each of them lies.
    pub output_storage: Vec<Storage>,
    /// Memory it will take.
    pub memory: Memory,
    /// The nodes that tuning may choose kernels for, in order, equal ones once each.
    pub tunable: Vec<Tunable>,
}

/// How a tape is planned.
#[derive(Debug, Clone, Copy, Default)]
struct How<'a> {
    /// What depends on variables alone is done beforehand.
    prepare: bool,
    /// The scope whose operations come behind all others.
    closing: Option<&'a str>,
    /// Every update is a launch of its own.
    separate: bool,
}

/// The span of launch positions (node positions) during which a tensor must keep its slot.
#[derive(Debug, Clone)]
struct Tenant {
    first: usize,
    last: usize,
    bytes: u64,
}

impl Plan {
    /// Plans `tape` so that `outputs` can be read after each step.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] if a tensor is larger than the device can bind, [`Kind::Unsupported`] if an op cannot
    /// run on it.
    pub fn new(tape: &Tape, outputs: &[Tensor], caps: &Caps) -> Result<Self> {
        Self::of(&fuse(tape, outputs, caps), outputs, caps, How::default())
    }

    /// As [`new`](Self::new), but what depends on variables alone is done beforehand, in [`Self::preparation`], and its
    /// results stay: for graphs that run many times while their variables do not change.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn preparing(tape: &Tape, outputs: &[Tensor], caps: &Caps) -> Result<Self> {
        Self::of(&fuse(tape, outputs, caps), outputs, caps, How { prepare: true, ..How::default() })
    }

    /// As [`new`](Self::new), with the operations of the scope `closing` behind all others, so that the rest can be run
    /// several times before: once for each part of a batch. They may read inputs and variables, but nothing else that
    /// the rest computes.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Kind::Internal`] if they read something else.
    pub fn in_two(tape: &Tape, outputs: &[Tensor], caps: &Caps, closing: &str) -> Result<Self> {
        Self::of_training(tape, outputs, caps, Some(closing), false)
    }

    /// As [`new`](Self::new), or as [`in_two`](Self::in_two) where there is a scope that closes; and with `prepare` as
    /// [`preparing`](Self::preparing), for steps that leave some variables as they are.
    ///
    /// # Errors
    /// As [`in_two`](Self::in_two).
    pub fn of_training(
        tape: &Tape,
        outputs: &[Tensor],
        caps: &Caps,
        closing: Option<&str>,
        prepare: bool,
    ) -> Result<Self> {
        Self::of(&fuse(tape, outputs, caps), outputs, caps, How { closing, prepare, separate: false })
    }

    /// As [`new`](Self::new), with every operation on its own: what fusion is compared with.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn unfused(tape: &Tape, outputs: &[Tensor], caps: &Caps) -> Result<Self> {
        Self::of(tape, outputs, caps, How { separate: true, ..How::default() })
    }

    fn of(tape: &Tape, outputs: &[Tensor], caps: &Caps, how: How<'_>) -> Result<Self> {
        let closes = |n: usize| how.closing.is_some_and(|scope| tape.nodes()[n].scope == scope);
        let order = schedule(tape, outputs, &closes);
        if let Some(position) = order.iter().position(|&n| closes(n)) {
            check_closing(tape, order.split_at(position))?;
        }
        let kept: Vec<Tensor> = outputs.iter().map(|&t| tape.root(t)).collect();
        let bundles = if how.separate { Bundles::default() } else { Bundles::find(tape, &order, &kept, caps, &closes) };
        let constant = if how.prepare { constant(tape, &order) } else { vec![false; order.len()] };
        let constant: HashSet<usize> = order.iter().zip(constant).filter(|(_, is)| *is).map(|(&n, _)| n).collect();
        let steps = bundles.steps(&order);
        let lowered = steps.iter().map(|step| lower(tape, &bundles, step, caps)).collect::<Result<Vec<_>>>()?;

        let mut plan = Self {
            preparation: vec![],
            dispatches: vec![],
            closing: 0,
            exchanges: vec![],
            slots: vec![],
            textures: TextureSizes::default(),
            arenas: vec![],
            inputs: vec![],
            variables: tape.variables().to_vec(),
            outputs: outputs.iter().map(|&t| (t, tape.ty(t).clone())).collect(),
            output_storage: vec![],
            memory: Memory::default(),
            tunable: vec![],
        };
        for &n in &order {
            plan.note_tunable(tape, n, caps);
        }
        // Fixed places first; what is left lives in slots.
        let mut storage: Vec<Option<Storage>> = vec![None; tape.len()];
        for t in tape.tensors() {
            match tape.origin(t) {
                Origin::Variable(v) => storage[t.index()] = Some(Storage::Variable(*v)),
                Origin::Input(name) => {
                    storage[t.index()] = Some(Storage::Input(plan.inputs.len()));
                    plan.inputs.push((name.clone(), tape.ty(t).clone()));
                }
                Origin::Node { .. } | Origin::View(_) => {}
            }
        }
        for (&t, &(arena, member)) in &bundles.place {
            if bundles.arenas[arena].variables.is_none() {
                storage[t.index()] = Some(Storage::Member(arena, member));
            }
        }
        for (i, &t) in outputs.iter().enumerate() {
            let root = tape.root(t).index();
            if storage[root].is_none() {
                storage[root] = Some(Storage::Output(i));
            }
        }

        let mut tenants: Vec<Tenant> = vec![];
        let mut tenant_of: Vec<Option<usize>> = vec![None; tape.len()];
        let mut scratch_tenants: Vec<Vec<usize>> = vec![];
        for (position, step) in steps.iter().enumerate() {
            let nodes = step.nodes.iter().map(|&n| &tape.nodes()[n]);
            for &t in nodes.flat_map(|node| node.outputs.iter().chain(&node.inputs)) {
                let root = tape.root(t).index();
                if storage[root].is_some() {
                    continue;
                }
                match tenant_of[root] {
                    Some(i) => tenants[i].last = tenants[i].last.max(position),
                    None => {
                        tenant_of[root] = Some(tenants.len());
                        let bytes = tape.ty(Tensor(root)).bytes();
                        // What is prepared is read in every step, so its slot is never free.
                        let (first, last) =
                            if constant.contains(&step.nodes[0]) { (0, usize::MAX) } else { (position, position) };
                        tenants.push(Tenant { first, last, bytes });
                    }
                }
            }
            let first = tenants.len();
            tenants.extend(lowered[position].0.scratch.iter().map(|ty| Tenant {
                first: position,
                last: position,
                bytes: ty.bytes(),
            }));
            scratch_tenants.push((first..tenants.len()).collect());
        }
        plan.output_storage = outputs.iter().filter_map(|&t| storage[tape.root(t).index()]).collect();
        let (slots, slot_of) = assign(&tenants);
        let place = |t: Tensor| -> Storage {
            let root = tape.root(t).index();
            match (storage[root], tenant_of[root]) {
                (Some(fixed), _) => fixed,
                (None, Some(tenant)) => Storage::Slot(slot_of[tenant]),
                (None, None) => unreachable!("every operand of a scheduled node was given a place above"),
            }
        };

        for (position, (step, (lowered, exchange))) in steps.iter().zip(lowered).enumerate() {
            let n = step.nodes[0];
            let node = &tape.nodes()[n];
            if let Some(exchange) = exchange {
                let scratch = |operand: &Operand| match *operand {
                    Operand::Scratch(i) => {
                        let slot = Storage::Slot(slot_of[scratch_tenants[position][i]]);
                        Ok((slot, lowered.scratch[i].shape.len()))
                    }
                    Operand::Input(_) | Operand::Output(_) => {
                        Err(Error::new(Kind::Internal, "ranks put together what is not scratch").at(node.op.name()))
                    }
                };
                let storage = exchange.operands.iter().map(scratch).collect::<Result<_>>()?;
                let before = plan.dispatches.len() + exchange.before;
                let (op, scope) = (node.op.name(), &node.scope);
                plan.exchanges.push(PlannedExchange::new(&exchange, before, storage, op, scope));
            }
            let input = |i: usize| match step.arena_of(&bundles, i) {
                Some(arena) => Storage::Arena(arena),
                None => place(node.inputs[i]),
            };
            for dispatch in lowered.dispatches {
                let storage = dispatch
                    .bindings
                    .iter()
                    .map(|binding| match binding.operand {
                        Operand::Input(i) => input(i),
                        Operand::Output(i) => place(node.outputs[i]),
                        Operand::Scratch(i) => Storage::Slot(slot_of[scratch_tenants[position][i]]),
                    })
                    .collect();
                let prepared = constant.contains(&n);
                if !closes(n) && !prepared {
                    plan.closing = plan.dispatches.len() + 1;
                }
                let list = if prepared { &mut plan.preparation } else { &mut plan.dispatches };
                list.push(PlannedDispatch { dispatch, storage, op: node.op.name(), scope: node.scope.clone() });
            }
        }
        plan.textures = TextureSizes::of(plan.preparation.iter().chain(&plan.dispatches).map(|d| &d.dispatch));
        let own: u64 = bundles.arenas.iter().filter(|a| a.variables.is_none()).map(|a| a.bytes).sum();
        let copies = plan.textures.bytes();
        plan.memory = Memory {
            variables: plan.variables.iter().map(|v| v.ty.bytes()).sum(),
            io: plan.inputs.iter().map(|(_, ty)| ty.bytes()).chain(plan.outputs.iter().map(|(_, ty)| ty.bytes())).sum(),
            slots: slots.iter().map(|slot| slot.bytes).sum::<u64>() + own + copies,
            without_reuse: tenants.iter().map(|t| t.bytes).sum::<u64>() + own + copies,
        };
        plan.slots = slots;
        plan.arenas = bundles.arenas;
        plan.check_limits(caps)?;
        Ok(plan)
    }

    /// The last of the launches before [`closing`](Self::closing) that reads or writes a variable.
    pub fn last_use(&self, variable: &str) -> Option<usize> {
        let number = self.variables.iter().position(|v| v.name == variable)?;
        let is = |storage: &Storage| match *storage {
            Storage::Variable(other) => other == number,
            Storage::Arena(arena) => self.arenas[arena].variables.as_ref().is_some_and(|v| v.contains(&number)),
            Storage::Input(_) | Storage::Output(_) | Storage::Slot(_) | Storage::Member(..) => false,
        };
        self.dispatches[..self.closing].iter().rposition(|launch| launch.storage.iter().any(is))
    }

    fn note_tunable(&mut self, tape: &Tape, n: usize, caps: &Caps) {
        let node = &tape.nodes()[n];
        let types = |ts: &[Tensor]| ts.iter().map(|&t| tape.ty(t).clone()).collect::<Vec<_>>();
        let (inputs, mut outputs) = (types(&node.inputs), types(&node.outputs));
        // Runs of rows depend on the choice.
        let op = node.op.without_statistics().inspect(|_| outputs.truncate(1)).unwrap_or_else(|| Arc::clone(&node.op));
        let candidates = op.candidates(&Lower { inputs: &inputs, outputs: &outputs, caps });
        if let Some(candidates) = candidates
            && self.tunable.iter().all(|t| t.candidates.key != candidates.key)
        {
            self.tunable.push(Tunable { op, inputs, outputs, candidates });
        }
    }

    /// Whether the device really gives the memory for plans that share a [`Store`](super::Store), in the order in which they
    /// are built: allocates it and lets it go.
    ///
    /// # Errors
    /// Device errors other than lack of memory.
    pub fn fit(gpu: &Gpu, plans: &[&Self]) -> Result<bool> {
        let (mut sizes, mut shared): (Vec<u64>, Vec<u64>) = (variables_of(plans).into_values().collect(), vec![]);
        for plan in plans {
            share(&plan.slots, &mut shared);
            sizes.extend(plan.slots.iter().filter(|slot| slot.kept).map(|slot| slot.bytes));
            sizes.extend(plan.inputs.iter().map(|(_, ty)| ty.bytes()));
            // An output, and its copies on their way to the host.
            let outputs = plan.outputs.iter().map(|(_, ty)| ty.bytes());
            sizes.extend(outputs.flat_map(|bytes| [bytes; 1 + IN_FLIGHT]));
            sizes.extend(plan.arenas.iter().filter(|arena| arena.variables.is_none()).map(|arena| arena.bytes));
        }
        let sizes = sizes.into_iter().chain(shared);
        let buffers = sizes.map(|bytes| gpu.allocate("trial", bytes, Usage::Storage)).collect::<Result<Vec<_>>>();
        let textures = |plan: &&Self| gpu.allocate_textures(&plan.textures);
        let held = buffers.and_then(|buffers| Ok((buffers, plans.iter().map(textures).collect::<Result<Vec<_>>>()?)));
        let fits = match held {
            Ok(held) => {
                drop(held);
                true
            }
            Err(e) if e.kind() == Kind::OutOfMemory => false,
            Err(e) => return Err(e),
        };
        gpu.poll()?;
        Ok(fits)
    }

    fn check_limits(&self, caps: &Caps) -> Result<()> {
        let limit = caps.max_binding.min(caps.max_buffer);
        let variables = self.variables.iter().map(|v| (v.name.as_str(), v.ty.bytes()));
        let inputs = self.inputs.iter().map(|(name, ty)| (name.as_str(), ty.bytes()));
        let slots = self.slots.iter().map(|slot| ("an activation", slot.bytes));
        let outputs = self.outputs.iter().map(|(_, ty)| ("an output", ty.bytes()));
        match variables.chain(inputs).chain(slots).chain(outputs).find(|&(_, bytes)| bytes > limit) {
            None => Ok(()),
            Some((name, bytes)) => Err(Error::new(
                Kind::OutOfMemory,
                format!(
                    "{name} needs {:.1} MiB in one piece, and this device binds at most {:.1} MiB",
                    mebibytes(bytes),
                    mebibytes(limit)
                ),
            )
            .next("use a smaller --batch or --size")),
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The live nodes in the order they will run.
fn schedule(tape: &Tape, outputs: &[Tensor], closes: &dyn Fn(usize) -> bool) -> Vec<usize> {
    let nodes = tape.nodes();
    let live = live(tape, outputs);
    // A node's key is its position on the tape; that of a pure update is the largest key it has to wait for.
    let mut key: Vec<usize> = (0..nodes.len()).collect();
    for n in 0..nodes.len() {
        let node = &nodes[n];
        if closes(n) {
            key[n] = nodes.len();
        }
        if !live[n] || node.op.updates().is_empty() || !node.outputs.is_empty() || closes(n) {
            continue;
        }
        let reads: Vec<Tensor> = node.inputs.iter().map(|&t| tape.root(t)).collect();
        let writes: Vec<Tensor> = node.op.updates().iter().map(|&i| tape.root(node.inputs[i])).collect();
        let raises: Vec<Tensor> = node.raised().map(|t| tape.root(t)).collect();
        key[n] = (0..n)
            .filter(|&m| live[m])
            .filter(|&m| {
                let other = &nodes[m];
                let flags: Vec<Tensor> = other.raised().map(|t| tape.root(t)).filter(|t| raises.contains(t)).collect();
                let is_among = |t: Tensor, list: &[Tensor]| list.contains(&t) && !flags.contains(&t);
                let produces = other.outputs.iter().any(|t| reads.contains(t));
                let touches = other.inputs.iter().any(|&t| is_among(tape.root(t), &writes));
                let updates = other.op.updates().iter().any(|&i| is_among(tape.root(other.inputs[i]), &reads));
                produces || touches || updates
            })
            .map(|m| key[m])
            .max()
            .unwrap_or(0);
    }
    let mut order: Vec<usize> = (0..nodes.len()).filter(|&n| live[n]).collect();
    // At equal keys the awaited node comes first: it is earlier on the tape.
    order.sort_by_key(|&n| (key[n], n));
    order
}

/// What closes a step must not read what only the last part of the batch has left behind.
fn check_closing(tape: &Tape, (parts, closing): (&[usize], &[usize])) -> Result<()> {
    let made = |n: &usize| tape.nodes()[*n].outputs.iter().map(|&t| tape.root(t));
    let of_parts: HashSet<Tensor> = parts.iter().flat_map(made).collect();
    let reads = |n: &usize| tape.nodes()[*n].inputs.iter().any(|&t| of_parts.contains(&tape.root(t)));
    match closing.iter().find(|n| reads(n)) {
        None => Ok(()),
        Some(&n) => Err(Error::new(Kind::Internal, "what closes a step reads a result of one part of its batch")
            .at(format!("{} '{}'", tape.nodes()[n].op.name(), tape.nodes()[n].scope))),
    }
}

/// Of the nodes in `order`, which depend only on variables that none of them changes.
fn constant(tape: &Tape, order: &[usize]) -> Vec<bool> {
    let mut fixed = vec![false; tape.len()];
    for t in tape.tensors() {
        fixed[t.index()] = matches!(tape.origin(t), Origin::Variable(_));
    }
    for &n in order {
        let node = &tape.nodes()[n];
        node.op.updates().iter().for_each(|&i| fixed[tape.root(node.inputs[i]).index()] = false);
    }
    let mut constant = Vec::with_capacity(order.len());
    for &n in order {
        let node = &tape.nodes()[n];
        let is = node.op.updates().is_empty() && node.inputs.iter().all(|&t| fixed[tape.root(t).index()]);
        node.outputs.iter().for_each(|t| fixed[t.index()] = is);
        constant.push(is);
    }
    constant
}

fn lower(tape: &Tape, bundles: &Bundles, step: &Step, caps: &Caps) -> Result<(Lowered, Option<Exchange>)> {
    let node = &tape.nodes()[step.nodes[0]];
    let outputs: Vec<TensorType> = node.outputs.iter().map(|&t| tape.ty(t).clone()).collect();
    let inputs = bundles.input_types(tape, step);
    let cx = Lower { inputs: &inputs, outputs: &outputs, caps };
    let lowered = node.op.lower(&cx)?;
    for dispatch in &lowered.dispatches {
        let place = || format!("{} in '{}'", dispatch.kernel.label(), node.scope);
        if dispatch.kernel.matrices.is_some_and(|side| caps.matrices != Some(side)) {
            let message = "a kernel wants cooperative matrices that this device does not have or that were not proven";
            return Err(Error::new(Kind::Unsupported, message).at(place()));
        }
        if dispatch.kernel.half && !caps.f16 {
            return Err(Error::new(Kind::Unsupported, "this device has no 16-bit floats in shaders")
                .at(place())
                .next("use --precision f32, or choose another adapter with --adapter (see `lesion-gpu devices`)"));
        }
        if dispatch.workgroups.iter().any(|&g| g > caps.max_workgroups || g == 0) {
            let message = format!("a launch of {:?} workgroups exceeds this device's limit", dispatch.workgroups);
            return Err(Error::new(Kind::Unsupported, message).at(place()).next("use a smaller --batch or --size"));
        }
        let buffers = dispatch.bindings.iter().filter(|b| !matches!(b.access, Access::Texture(_))).count();
        if buffers as u32 > caps.max_storage_buffers {
            let message = format!("a kernel binds {buffers} buffers, more than this device allows");
            return Err(Error::new(Kind::Unsupported, message).at(place()));
        }
    }
    let exchange = node.op.exchange(&cx, &lowered);
    Ok((lowered, exchange))
}

/// Gives every tenant a slot: returns the slots and each tenant's slot.
fn assign(tenants: &[Tenant]) -> (Vec<Slot>, Vec<usize>) {
    let mut by_size: Vec<usize> = (0..tenants.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(tenants[i].bytes), tenants[i].first));
    let mut slots: Vec<(u64, Vec<usize>)> = vec![];
    let mut slot_of = vec![0; tenants.len()];
    for &i in &by_size {
        let tenant = &tenants[i];
        let free =
            |others: &[usize]| others.iter().all(|&o| tenants[o].last < tenant.first || tenant.last < tenants[o].first);
        let best = (0..slots.len()).filter(|&s| free(&slots[s].1)).min_by_key(|&s| slots[s].0);
        let slot = best.unwrap_or_else(|| {
            slots.push((tenant.bytes, vec![]));
            slots.len() - 1
        });
        slots[slot].1.push(i);
        slot_of[i] = slot;
    }
    let kept = |of: &[usize]| of.iter().any(|&i| tenants[i].last == usize::MAX);
    (slots.into_iter().map(|(bytes, of)| Slot { bytes, kept: kept(&of) }).collect(), slot_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_that_live_together_never_share_a_slot() {
        let spans = [(0, 1, 100), (1, 2, 50), (2, 3, 100), (3, 5, 70), (4, 4, 10), (0, 5, 30)];
        let tenants: Vec<Tenant> = spans.iter().map(|&(first, last, bytes)| Tenant { first, last, bytes }).collect();
        let (slots, slot_of) = assign(&tenants);
        for (i, a) in tenants.iter().enumerate() {
            assert!(slots[slot_of[i]].bytes >= a.bytes);
            for (j, b) in tenants.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                assert!(!together || slot_of[i] != slot_of[j], "{i} and {j}");
            }
        }
        assert_eq!(slots.iter().map(|slot| slot.bytes).sum::<u64>(), 200, "{slots:?}");
    }

    #[test]
    fn plans_in_turns_share_the_smallest_buffers_that_fit_but_no_kept_ones() {
        let slot = |bytes| Slot { bytes, kept: false };
        let kept = |bytes| Slot { bytes, kept: true };
        let mut buffers = vec![];
        assert_eq!(share(&[slot(100), kept(50), slot(40), slot(10)], &mut buffers), [Some(0), None, Some(1), Some(2)]);
        // The second plan: 60 fits into 100, 45 into nothing that is left.
        let second = share(&[slot(5), slot(45), slot(60), kept(8)], &mut buffers);
        assert_eq!(buffers, [100, 40, 10, 45]);
        assert_eq!(second, [Some(2), Some(3), Some(0), None]);
        assert_eq!(share(&[slot(45), slot(45)], &mut buffers), [Some(3), Some(0)]);
    }
}
