//! A step that several ranks take together: each computes its rows, their gradients are added up, all update alike.
//!
//! Gradients go round in *buckets*, in the order in which the backward pass is through with them. A bucket is on its way to the
//! host and from rank to rank while the device goes on with the rest. What a bucket holds does not change a bit of any sum in f32.

use std::sync::mpsc;
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Wire;
use super::graph::TOTAL;
use super::mixing::Partners;
use super::session::{Portion, StepResult, TrainSession};
use super::shares::Shares;
use crate::autograd::{Early, Group, Plan, Store};
use crate::data::Batch;
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::parallel::{Team, Transit, all_reduce_f16, all_reduce_f32, all_reduce_f64, largest_magnitude};

/// Numbers of a bucket at least, the last one apart.
const BUCKET: usize = 1 << 20;

/// What the ranks of a run exchange in each step.
pub(super) struct Shared {
    buckets: Vec<Bucket>,
    /// Their numbers, on the host.
    sums: Vec<Vec<f32>>,
    transit: Transit,
    /// The running statistics of batch-norm.
    statistics: Group,
    wire: Wire,
}

/// Sums of gradients that go round together.
struct Bucket {
    totals: Group,
    /// Launches behind which they are complete.
    behind: usize,
}

/// The submission of a step: by a thread of its own, or done.
enum Submission<'scope> {
    Beside(ScopedJoinHandle<'scope, Result<Option<StepResult>>>),
    Done(Option<StepResult>),
}

impl Submission<'_> {
    fn is_over(&self) -> bool {
        match self {
            Self::Beside(thread) => thread.is_finished(),
            Self::Done(_) => true,
        }
    }

    fn join(self) -> Result<Option<StepResult>> {
        match self {
            Self::Beside(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Self::Done(result) => Ok(result),
        }
    }
}

/// Where the time of a step went, seen by the thread that speaks with the other ranks, in seconds from the step's beginning.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Timeline {
    /// When each bucket of gradients was on the host.
    pub ready: Vec<f64>,
    /// When the loss was.
    pub computed: f64,
    /// When the step was over, its optimizer submitted.
    pub total: f64,
    /// What of it went by in exchanges with other ranks, their waiting for each other included.
    pub communication: f64,
    /// What of it went by in writing sums to the device.
    pub writing: f64,
}

/// What a step came to.
pub(super) struct Done {
    /// On all ranks.
    pub result: StepResult,
    /// What any of them wants.
    pub signals: Signals,
    pub timeline: Timeline,
}

/// Which part of a step this rank's is, by the weights of its rows, and the seconds in which the ranks told each other.
pub(super) fn portion(team: &Team, shares: &Shares, images: usize, own: &[f32]) -> Result<(Portion, f64)> {
    let begun = Instant::now();
    let all = team.exchange("the weights of rows", Ok(bytemuck::cast_slice(own).to_vec()))?;
    let all = all.iter().flat_map(|rank| bytemuck::pod_collect_to_vec::<u8, f32>(rank));
    // As one process adds them up.
    let (team, whole, &Shares { before, parts, .. }) = (team.clone(), all.sum(), shares);
    Ok((Portion { team, images, before, parts, whole }, begun.elapsed().as_secs_f64()))
}

/// What ranks want to do behind a step; one that wants it is enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signals {
    /// To stop.
    pub stop: bool,
    /// To write a checkpoint.
    pub checkpoint: bool,
}

/// What a rank says of its part of a step.
#[derive(Serialize, Deserialize)]
struct Part {
    /// The bits of its part of the loss.
    loss: u32,
    correct: usize,
    images: usize,
    fault: Option<u64>,
    skipped: bool,
    wants: Signals,
}

pub(super) fn garbled(e: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("ranks do not understand each other: {e}"))
}

/// The names of the totals of a plan in buckets, in the order in which it is through with them.
fn buckets(plan: &Plan) -> Result<Vec<Vec<String>>> {
    let totals = plan.variables.iter().filter(|variable| variable.name.starts_with(TOTAL));
    let last_use = |name: &str| {
        plan.last_use(name).ok_or_else(|| Error::new(Kind::Internal, format!("nothing is added to '{name}'")))
    };
    let totals = totals.map(|total| Ok((last_use(&total.name)?, &total.name, total.ty.shape.len())));
    let mut totals = totals.collect::<Result<Vec<_>>>()?;
    totals.sort();
    let mut buckets: Vec<(usize, Vec<String>)> = vec![];
    for (_, name, elements) in totals {
        match buckets.last_mut().filter(|(size, _)| *size < BUCKET) {
            Some((size, names)) => {
                *size += elements;
                names.push(name.clone());
            }
            None => buckets.push((elements, vec![name.clone()])),
        }
    }
    Ok(buckets.into_iter().map(|(_, names)| names).collect())
}

impl Shared {
    /// Prepares the steps of a graph in parts, with the variables of `store`, of which `moving` are running statistics. All ranks
    /// call it together.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] if there is no room for what is read back; those of other ranks.
    pub fn new<'a>(
        gpu: &Gpu,
        plan: &Plan,
        store: &Store,
        moving: impl Iterator<Item = &'a str>,
        (team, wire): (&Team, Wire),
    ) -> Result<Self> {
        // Ranks with other numbers of rows may come to another order: that of the first counts.
        let sent =
            team.of_first("the buckets of gradients", || serde_json::to_vec(&buckets(plan)?).map_err(garbled))?;
        let named: Vec<Vec<String>> = serde_json::from_slice(&sent).map_err(garbled)?;
        let (mut complete, mut buckets) = (0, vec![]);
        for names in &named {
            let last = names.iter().map(|name| plan.last_use(name).map_or(plan.closing, |launch| launch + 1)).max();
            complete = complete.max(last.unwrap_or_default());
            let totals = store.group(gpu, names.iter().map(String::as_str))?;
            buckets.push(Bucket { totals, behind: complete });
        }
        let sums = buckets.iter().map(|bucket| vec![0.0; bucket.totals.elements()]).collect();
        Ok(Self { buckets, sums, transit: Transit::default(), statistics: store.group(gpu, moving)?, wire })
    }

    /// The numbers in each bucket of gradients.
    pub fn buckets(&self) -> impl Iterator<Item = usize> {
        self.buckets.iter().map(|bucket| bucket.totals.elements())
    }

    /// From now on, exchanges begin when the backward pass of `plan` is over.
    pub fn without_overlap(&mut self, plan: &Plan) {
        for bucket in &mut self.buckets {
            bucket.behind = plan.closing;
        }
    }

    /// One step: `at` is its number, its epoch and its learning rate.
    ///
    /// # Errors
    /// As [`TrainSession::step`]; those of other ranks.
    pub fn step(
        &mut self,
        gpu: &Gpu,
        train: &mut TrainSession,
        rows: (&Batch, Option<&Partners>),
        at: (u64, u32, f64),
        portion: &Portion,
        wants: Signals,
    ) -> Result<Done> {
        let (team, begun, mut timeline) = (&portion.team, Instant::now(), Timeline::default());
        let finished = self.sum_gradients(gpu, train, rows, at, portion, (begun, &mut timeline))?;
        let own = match finished {
            Some(own) => own,
            None => train.collect(gpu)?.ok_or_else(|| Error::new(Kind::Internal, "a step got lost"))?,
        };
        timeline.computed = begun.elapsed().as_secs_f64();
        let weight = own.images as f64 / portion.images as f64;
        let mut moving: Vec<f64> = self.statistics.read(gpu)?.into_iter().map(|v| f64::from(v) * weight).collect();
        let StepResult { step, loss, correct, images, fault, skipped } = own;
        let part = Part { loss: loss.to_bits(), correct, images, fault, skipped, wants };
        let exchanging = Instant::now();
        let parts = team.exchange("a step", serde_json::to_vec(&part).map_err(garbled))?;
        // Nothing may fail between an exchange and a sum.
        all_reduce_f64(team.ranks(), &mut moving, &mut self.transit)?;
        timeline.communication += exchanging.elapsed().as_secs_f64();
        self.statistics.write(gpu, &moving.iter().map(|&v| v as f32).collect::<Vec<_>>())?;
        train.close(gpu)?;

        let mut signals = Signals::default();
        let mut all = StepResult { step, loss: 0.0, correct: 0, images: 0, fault: None, skipped: false };
        for part in parts {
            let part: Part = serde_json::from_slice(&part).map_err(garbled)?;
            all.loss += f32::from_bits(part.loss);
            all.correct += part.correct;
            all.images += part.images;
            all.fault = all.fault.or(part.fault);
            all.skipped |= part.skipped;
            signals.stop |= part.wants.stop;
            signals.checkpoint |= part.wants.checkpoint;
        }
        timeline.total = begun.elapsed().as_secs_f64();
        Ok(Done { result: all, signals, timeline })
    }

    /// Runs the parts of a step and adds up their gradients over all ranks, on the device; what [`TrainSession::run_parts`] returns.
    fn sum_gradients(
        &mut self,
        gpu: &Gpu,
        train: &mut TrainSession,
        rows: (&Batch, Option<&Partners>),
        at: (u64, u32, f64),
        portion: &Portion,
        (begun, timeline): (Instant, &mut Timeline),
    ) -> Result<Option<StepResult>> {
        let (team, Self { buckets, sums, transit, wire, .. }) = (&portion.team, self);
        let early: Vec<(usize, &Group)> = buckets.iter().map(|bucket| (bucket.behind, &bucket.totals)).collect();
        let speaks = !train.executable().plan().exchanges.is_empty();
        let (sender, under_way) = mpsc::channel();
        let session = &mut *train;
        let submit = move || {
            // Dropped at the end of this, well or not: no more groups come then.
            let sender = sender;
            // Nobody receives once an exchange has failed.
            let mut started = |group| drop(sender.send(group));
            session.run_parts(gpu, rows, at, Some((portion, Early { groups: &early, started: &mut started })))
        };
        std::thread::scope(|scope| {
            // Software drivers compute while they take a submission, so that one thread would come to the first bucket when there
            // is nothing left to exchange it beside. But all that goes to other ranks goes from this thread, in one order, and
            // norms over the batch speak to them in the middle of a submission.
            let submission = if speaks {
                Submission::Done(submit()?)
            } else {
                let thread = std::thread::Builder::new().name("submit".into()).spawn_scoped(scope, submit);
                Submission::Beside(
                    thread.map_err(|e| Error::new(Kind::Internal, format!("no thread to submit with: {e}")))?,
                )
            };
            let mut write = |bucket: &Bucket, sums: &[f32]| {
                let begun = Instant::now();
                let written = bucket.totals.write(gpu, sums);
                timeline.writing += begun.elapsed().as_secs_f64();
                written
            };
            let (mut exchanged, mut written) = (0, 0);
            for (number, bucket) in buckets.iter().enumerate() {
                let Ok(read) = under_way.recv() else { break };
                let own = &mut sums[number][..];
                let read = bucket.totals.finish(gpu, read, own);
                timeline.ready.push(begun.elapsed().as_secs_f64());
                let told = read.as_ref().map_err(Clone::clone).map(|()| match wire {
                    Wire::F32 => vec![],
                    Wire::F16 => largest_magnitude(own).to_le_bytes().to_vec(),
                });
                let about = format!("gradients, bucket {number}");
                let exchanging = Instant::now();
                // Nothing may fail between an exchange and a sum.
                let all = team.exchange(&about, told)?;
                read?;
                match wire {
                    Wire::F32 => all_reduce_f32(team.ranks(), own, transit)?,
                    Wire::F16 => {
                        let all = all.iter().flat_map(|of| bytemuck::pod_collect_to_vec::<u8, f32>(of));
                        all_reduce_f16(team.ranks(), own, largest_magnitude(&all.collect::<Vec<_>>()), transit)?;
                    }
                }
                timeline.communication += exchanging.elapsed().as_secs_f64();
                exchanged += 1;
                // No launch touches them any more before the step is closed. But buckets may share a buffer, of which wgpu tracks
                // one state: it is not written while launches with it are submitted.
                while submission.is_over() && written < exchanged {
                    write(&buckets[written], &sums[written])?;
                    written += 1;
                }
            }
            let finished = submission.join()?;
            if exchanged != buckets.len() {
                return Err(Error::new(Kind::Internal, "a bucket of gradients got lost"));
            }
            (written..exchanged).try_for_each(|number| write(&buckets[number], &sums[number]))?;
            Ok(finished)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Caps;
    use crate::models::Model;
    use crate::train::{TrainConfig, TrainGraph};

    #[test]
    fn buckets_hold_every_gradient_once_and_the_first_are_complete_long_before_the_last() {
        let config = TrainConfig { batch: 8, micro_batch: Some(8), ..TrainConfig::default() };
        let model = Model::find("resnet18").unwrap();
        let plan = TrainGraph::new(model, &config, 8, 7, &Caps::baseline()).unwrap().plan;
        let buckets = buckets(&plan).unwrap();
        let mut names: Vec<&String> = buckets.iter().flatten().collect();
        names.sort();
        let mut totals: Vec<&String> =
            plan.variables.iter().map(|v| &v.name).filter(|n| n.starts_with(TOTAL)).collect();
        totals.sort();
        assert_eq!(names, totals);
        let complete = |names: &Vec<String>| names.iter().filter_map(|name| plan.last_use(name)).max().unwrap();
        let complete: Vec<usize> = buckets.iter().map(complete).collect();
        assert!(complete.is_sorted() && complete[complete.len() - 1] < plan.closing, "{complete:?}");
        // Half of all launches are those of the backward pass.
        assert!(buckets.len() > 4 && complete[0] < plan.closing * 2 / 3, "{complete:?} of {}", plan.closing);
    }
}
