//! A model in host memory on its way to a device.

use super::session::{EvalSession, initialise, load_weights};
use super::{EvalGraph, HostModel};
use crate::autograd::Store;
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::tune::TuningCache;
use crate::weights::Difference;

impl HostModel {
    /// The model on a device: the graph that `plan` makes of it, with the kernels that tuning has chosen and the model's
    /// weights. Returns also what the weights lacked or had too much.
    ///
    /// # Errors
    /// Those of `plan`; [`Kind::Weights`](crate::Kind::Weights) for weights that do not fit; device errors.
    pub fn on_device(
        &self,
        gpu: &Gpu,
        tuning: Option<&TuningCache>,
        plan: &dyn Fn(&Caps) -> Result<EvalGraph>,
    ) -> Result<(EvalSession, Difference)> {
        let untuned = plan(gpu.caps())?;
        let choices = tuning.map(|cache| cache.choices(&untuned.plan.tunable)).unwrap_or_default();
        let graph = if choices.is_empty() { untuned } else { plan(&gpu.caps().with_choices(choices))? };
        let mut store = Store::new();
        let session = EvalSession::new(gpu, graph, &mut store)?;
        initialise(gpu, &store, session.parameters(), self.config.seed)?;
        let difference = load_weights(gpu, &store, session.parameters(), &self.weights, self.allow_partial)?;
        gpu.save_pipelines();
        Ok((session, difference))
    }
}
