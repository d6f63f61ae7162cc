//! The layers of a traced model by the names of modules in weight files. A layer's map is what its last operation makes.

use crate::autograd::{Tape, Tensor};
use crate::error::{Error, Kind, Result};

/// A layer that has a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Its name: `layer4`, `layer4.1.conv2`.
    pub name: String,
    /// Its map, `[N, H, W, C]`, or the tokens `[N, T, C]` or `[N T, C]` of a transformer.
    pub value: Tensor,
    /// Rows and columns of the map.
    pub grid: [usize; 2],
    /// Tokens of a picture in front of those of its patches.
    pub before: usize,
}

impl Layer {
    /// The layer of this name in a model of `batch` pictures, cut into so many `patches` if it is a transformer.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is none, or it has no map; with those there are.
    pub fn find(tape: &Tape, name: &str, batch: usize, patches: Option<[usize; 2]>) -> Result<Self> {
        let named = values(tape);
        let layer = named.iter().find(|(layer, _)| layer == name);
        if let Some((layer, value)) = layer
            && let Some((grid, before)) = grid(tape, *value, batch, patches)
        {
            return Ok(Self { name: layer.clone(), value: *value, grid, before });
        }
        let what = match layer {
            Some((_, value)) => {
                format!("the layer '{name}' has no map of several places: what it makes is {}", tape.shape(*value))
            }
            None => format!("the model has no layer '{name}'"),
        };
        // Names of three and more words are left out: they are many, and can be guessed from the others.
        let few = named
            .iter()
            .filter(|(layer, value)| layer.matches('.').count() < 2 && grid(tape, *value, batch, patches).is_some());
        let few: Vec<&str> = few.map(|(layer, _)| layer.as_str()).collect();
        let next = format!("choose one of these, or a layer inside of one: {}", few.join(", "));
        Err(Error::new(Kind::Usage, what).at(format!("layer {name}")).next(next))
    }
}

/// The last layer before that called `name` whose map has at least so many places a side, of names with as many words; none if
/// its own map has.
pub(super) fn finer(tape: &Tape, name: &str, least: usize) -> Option<String> {
    let named = values(tape);
    let is_fine =
        |value: Tensor| grid(tape, value, 1, None).is_some_and(|(sides, _)| sides.iter().all(|&s| s >= least));
    let at = named.iter().position(|(layer, _)| layer == name)?;
    if is_fine(named[at].1) {
        return None;
    }
    let words = |name: &str| name.matches('.').count();
    let before = named[..at].iter().rev().filter(|(layer, _)| words(layer) == words(name));
    before.filter(|(_, value)| is_fine(*value)).map(|(layer, _)| layer.clone()).next()
}

/// All layers and groups of layers, by first appearance, with the last value that each makes.
fn values(tape: &Tape) -> Vec<(String, Tensor)> {
    let mut named: Vec<(String, Tensor)> = vec![];
    for node in tape.nodes().iter().filter(|node| !node.scope.is_empty()) {
        let Some(&made) = node.outputs.first() else { continue };
        let ends = node.scope.match_indices('.').map(|(at, _)| at).chain([node.scope.len()]);
        for name in ends.map(|end| &node.scope[..end]) {
            match named.iter_mut().find(|(known, _)| known == name) {
                Some((_, last)) => *last = made,
                None => named.push((name.to_owned(), made)),
            }
        }
    }
    named
}

/// Rows and columns of a value that is a map of more than one place, and how many tokens come before it.
fn grid(tape: &Tape, value: Tensor, batch: usize, patches: Option<[usize; 2]>) -> Option<([usize; 2], usize)> {
    let shape = tape.shape(value);
    if let (Some([_, height, width, _]), None) = (shape.nhwc(), patches) {
        // Linear layers also have one place.
        return (height * width > 1).then_some(([height, width], 0));
    }
    let patches = patches?;
    let (tokens, all) = (shape.rows() / batch.max(1), patches[0] * patches[1]);
    (all..=all + 1).contains(&tokens).then(|| (patches, tokens - all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;
    use crate::nn::{Mode, Net};
    use crate::tensor::TensorType;

    /// The tape of a model, and its logits.
    fn traced(name: &str, size: [usize; 2]) -> (Model, Tape) {
        let model = Model::find(name).unwrap();
        let mut tape = Tape::new();
        let x = tape.input("images", TensorType::f32([2, size[0], size[1], 3]));
        let mut net = Net::new(&mut tape, Mode::Eval, 0);
        model.forward(&mut net, x, model.outputs(7)).unwrap();
        (model, tape)
    }

    fn find(name: &str, size: [usize; 2], layer: &str) -> Result<([usize; 2], usize, usize)> {
        let (model, tape) = traced(name, size);
        let found = Layer::find(&tape, layer, 2, model.patches(size))?;
        Ok((found.grid, found.before, tape.shape(found.value).last()))
    }

    #[test]
    fn every_model_has_its_default_layer() {
        for model in Model::all() {
            let size = [96, 112];
            let (_, tape) = traced(model.name(), size);
            let found = Layer::find(&tape, model.explained_layer(), 2, model.patches(size));
            assert!(found.is_ok(), "{}: {found:?}", model.name());
        }
    }

    #[test]
    fn of_small_pictures_an_earlier_layer_has_a_finer_map() {
        let of = |name: &str, side: usize, layer: &str| finer(&traced(name, [side; 2]).1, layer, 4);
        assert_eq!(of("resnet18", 128, "layer4"), None);
        assert_eq!(of("resnet18", 64, "layer4").as_deref(), Some("layer3"));
        assert_eq!(of("resnet18", 32, "layer4").as_deref(), Some("layer2"));
        assert_eq!(of("efficientnet-b0", 64, "features.8").as_deref(), Some("features.5"));
        assert_eq!(of("simple-cnn", 32, "conv3"), None);
    }

    #[test]
    fn layers_and_groups_are_found_by_the_names_in_files() {
        for (model, layer, want) in [
            ("resnet18", "layer4", ([2, 3], 0, 512)),
            ("resnet18", "layer3.0.bn1", ([4, 6], 0, 256)),
            ("resnet18", "conv1", ([32, 48], 0, 64)),
            ("resnet50-se", "se", ([2, 3], 0, 2048)),
            ("efficientnet-b0", "features.8", ([2, 3], 0, 1280)),
            ("efficientnet-b0", "features", ([2, 3], 0, 1280)),
            ("simple-cnn", "conv3", ([12, 20], 0, 128)),
            ("vit-small-16", "blocks.11.norm1", ([4, 6], 1, 384)),
            ("vit-small-16", "blocks.3.mlp.fc1", ([4, 6], 1, 1536)),
            ("vit-small-16", "patch_embed", ([4, 6], 0, 384)),
            ("unet-small", "encoder4.bn1", ([8, 12], 0, 128)),
        ] {
            assert_eq!(find(model, [64, 96], layer), Ok(want), "{model} {layer}");
        }
    }

    #[test]
    fn others_are_refused_with_those_there_are() {
        let error = find("resnet18", [64, 64], "layer5").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let text = error.to_string();
        assert!(text.contains("no layer 'layer5'") && text.contains("layer4, layer4.0, layer4.1"), "{text}");
        assert!(!text.contains("layer4.1.conv2") && !text.contains("fc"), "{text}");
        for (size, layer) in [(64, "fc"), (32, "layer4")] {
            let error = find("resnet18", [size; 2], layer).unwrap_err().to_string();
            assert!(error.contains(&format!("'{layer}' has no map")) && error.contains("is 2x1x1x"), "{error}");
        }
        let error = find("vit-small-16", [64, 64], "head").unwrap_err().to_string();
        assert!(error.contains("'head' has no map") && error.contains("blocks.11"), "{error}");
    }

    /// Its activation has no name of its own, and belongs to it as in Keras.
    #[test]
    fn the_baselines_convolutions_end_with_their_activation() {
        let (_, tape) = traced("simple-cnn", [32, 32]);
        let value = Layer::find(&tape, "conv2", 2, None).unwrap().value;
        let maker = tape.nodes().iter().find(|node| node.outputs == [value]).unwrap();
        assert_eq!(maker.op.name(), "relu");
    }
}
