//! What a model computes to be explained: its logits, and a layer with its gradients, or the attention of all blocks.

use super::layers::Layer;
use super::{Look, Method};
use crate::autograd::{Plan, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::Caps;
use crate::models::Model;
use crate::nn::Parameter;
use crate::ops::backward_from;
use crate::tensor::TensorType;
use crate::train::{EvalGraph, TracedModel, TrainConfig};

/// Of each logit, how much of it is in the score that is explained, f32 of the logits' shape. Uploaded before each run.
pub(super) const SCORE: &str = "score";

/// What is read of a run behind the logits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A layer and the gradients by it.
    Layer(Layer),
    /// The attention of each block, `[N, heads, T, T]`: the number of heads and of tokens, and rows and columns of the patches.
    Attention { heads: usize, tokens: usize, grid: [usize; 2] },
}

/// A traced model with what explains it.
pub(super) struct Graph {
    tape: Tape,
    parameters: Vec<Parameter>,
    outputs: Vec<Tensor>,
    pub method: Method,
    pub seen: Seen,
}

impl Graph {
    /// Traces a model of `batch` pictures.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a method or layer that the model does not have; [`Kind::Shape`] if it does not take images of the
    /// configuration's size.
    pub fn new(model: Model, config: &TrainConfig, batch: usize, classes: usize, look: &Look) -> Result<Self> {
        let TracedModel { mut tape, logits, parameters, .. } =
            TracedModel::from_pixels(model, config, batch, model.outputs(classes))?;
        let patches = model.patches(config.size.rows_columns());
        let method = look.method.unwrap_or(if patches.is_some() { Method::Rollout } else { Method::GradCam });
        if method == Method::Rollout {
            let (seen, attention) = attention(&tape, model, patches, look)?;
            return Ok(Self { tape, parameters, outputs: [vec![logits], attention].concat(), method, seen });
        }
        let name = look.layer.as_deref().unwrap_or(model.explained_layer());
        let layer = Layer::find(&tape, name, batch, patches)?;
        tape.flow_only_to(&[layer.value]);
        let score = tape.input(SCORE, TensorType::f32(tape.shape(logits).clone()));
        let gradients = backward_from(&mut tape, &[(logits, score)])?;
        let gradient = gradients.get(layer.value).ok_or_else(|| {
            Error::new(Kind::Usage, format!("the layer '{name}' does not lead to the model's answer"))
                .next("choose another --layer")
        })?;
        Ok(Self { tape, parameters, outputs: vec![logits, layer.value, gradient], method, seen: Seen::Layer(layer) })
    }

    /// Plans it for a device. Outputs: the logits, then what is [`Seen`].
    ///
    /// # Errors
    /// Those of [`Plan::preparing`].
    pub fn plan(&self, caps: &Caps) -> Result<EvalGraph> {
        let plan = Plan::preparing(&self.tape, &self.outputs, caps)?;
        Ok(EvalGraph { plan, parameters: self.parameters.clone() })
    }
}

/// The attention of all blocks. Nothing else of a model in evaluation mode is a softmax.
fn attention(tape: &Tape, model: Model, patches: Option<[usize; 2]>, look: &Look) -> Result<(Seen, Vec<Tensor>)> {
    let Some(grid) = patches else {
        let what = format!("attention rollout is for transformers, and {} is none", model.name());
        return Err(Error::new(Kind::Usage, what).next("use --method grad-cam or grad-cam++"));
    };
    if look.layer.is_some() {
        return Err(Error::new(Kind::Usage, "attention rollout goes through all layers")
            .next("leave --layer away, or use --method grad-cam or grad-cam++"));
    }
    let softmax = tape.nodes().iter().filter(|node| node.op.name() == "softmax");
    let attention: Vec<Tensor> = softmax.filter_map(|node| node.outputs.first().copied()).collect();
    match attention.first().map(|&t| tape.shape(t).dims()) {
        Some(&[_, heads, tokens, _]) => Ok((Seen::Attention { heads, tokens, grid }, attention)),
        _ => Err(Error::new(Kind::Internal, "a transformer without attention").at(model.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(model: &str, size: usize, look: &Look) -> Result<Graph> {
        let model = Model::find(model)?;
        let config = TrainConfig { size: size.into(), ..TrainConfig::of(model) };
        Graph::new(model, &config, 2, 7, look)
    }

    fn layer(name: &str) -> Look {
        Look { layer: Some(name.to_owned()), ..Look::default() }
    }

    /// The gradients end at the layer: below it nothing is computed twice, and no parameter has a gradient anywhere.
    #[test]
    fn gradients_go_down_to_the_layer_and_no_further() {
        let backward = |name: &str| -> Vec<(String, String)> {
            let graph = graph("resnet18", 64, &layer(name)).unwrap();
            let nodes = graph.tape.nodes().iter();
            let gradients = nodes.filter(|node| node.op.name().contains("grad") || node.op.name() == "accumulate");
            gradients.map(|node| (node.op.name().to_owned(), node.scope.clone())).collect()
        };
        let (last, third) = (backward("layer4"), backward("layer3"));
        assert!(last.len() == 2 && third.len() > 8, "{last:?} {third:?}");
        for (op, scope) in last.iter().chain(&third) {
            assert!(scope.is_empty() || scope == "fc" || scope.starts_with("layer4."), "{op} in {scope}");
            assert!(!["weight", "bias", "gamma", "beta"].iter().any(|of| op.contains(of)), "{op} in {scope}");
        }
    }

    #[test]
    fn methods_go_with_models() {
        let of = |model: &str, method| graph(model, 64, &Look { method, layer: None }).map(|graph| graph.method);
        assert_eq!(of("resnet18", None), Ok(Method::GradCam));
        assert_eq!(of("vit-small-16", None), Ok(Method::Rollout));
        assert_eq!(of("vit-small-16", Some(Method::GradCam)), Ok(Method::GradCam));
        assert!(of("resnet18", Some(Method::Rollout)).unwrap_err().what().contains("resnet18 is none"));
        let rollout = Look { method: Some(Method::Rollout), ..layer("blocks.3") };
        assert_eq!(graph("vit-small-16", 64, &rollout).err().map(|e| e.kind()), Some(Kind::Usage));
    }

    #[test]
    fn rollout_sees_all_blocks() {
        let graph = graph("vit-small-16", 64, &Look::default()).unwrap();
        assert_eq!(graph.seen, Seen::Attention { heads: 6, tokens: 17, grid: [4, 4] });
        assert_eq!(graph.outputs.len(), 13);
    }
}
