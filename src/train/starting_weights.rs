//! A weight file on its way into a model: names and layout, a head for other classes, what the file lacks.

use std::collections::BTreeMap;
use std::path::Path;

use super::host_model::describe;
use super::session::load_weights;
use super::{Normalisation, checkpoint};
use crate::autograd::Store;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::models::Model;
use crate::nn::Parameter;
use crate::weights::{Convention, Tensors, WeightFile};

/// The tensors of a file under the names of the model's parameters and in PyTorch's layout; the file's notes, and what
/// there is to know about the renaming.
///
/// # Errors
/// [`Kind::Weights`](crate::error::Kind::Weights) if the file is Keras's and cannot be the model's.
pub fn rename(model: Model, parameters: &[Parameter], file: WeightFile) -> Result<WeightFile> {
    let WeightFile { tensors, left_out, metadata, convention, mut notes } = file;
    let tensors = match convention {
        Convention::Torch => model.from_torch(parameters, tensors),
        Convention::Keras => {
            let found = model.from_keras(parameters, tensors)?;
            notes.extend(found.notes);
            found.tensors
        }
    };
    Ok(WeightFile { tensors, left_out, metadata, convention: Convention::Torch, notes })
}

/// The metadata of weights alone, without an optimizer's state: of a checkpoint, what `export` would say.
pub fn bare_metadata(mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if let Some((config, classes)) = checkpoint::run_in(&metadata) {
        let description = describe(&config, &classes, config.size);
        let description = description.into_iter().map(|(key, value)| (key.to_owned(), value));
        metadata.extend(description);
    }
    metadata.remove(checkpoint::KEY);
    metadata
}

/// The normalisation of pictures where the user does not choose: what a checkpoint or an exported file says, else what
/// published weights of the model expect; without weights, that of ImageNet, unless the model is Keras's.
///
/// # Errors
/// Those of [`metadata`](crate::weights::metadata) of the weight file.
pub fn normalisation_of(model: &str, weights: Option<&Path>) -> Result<Normalisation> {
    let metadata = weights.map(crate::weights::metadata).transpose()?;
    Ok(normalisation_for(model, metadata.as_ref()))
}

/// [`normalisation_of`] a weight file with this metadata.
pub(super) fn normalisation_for(model: &str, metadata: Option<&BTreeMap<String, String>>) -> Normalisation {
    let stated =
        |metadata: &BTreeMap<String, String>| bare_metadata(metadata.clone()).get("normalisation")?.parse().ok();
    match (metadata, Normalisation::of_published(model)) {
        (Some(metadata), published) => stated(metadata).unwrap_or(published),
        (None, Normalisation::Caffe) => Normalisation::Caffe,
        (None, _) => Normalisation::ImageNet,
    }
}

/// Starts a model that has its initial values from a weight file. A head that the file has for other classes, or not at all,
/// keeps its initial values; whatever else is missing needs `allow_partial`. Returns what there is to say, a line each.
///
/// # Errors
/// Those of [`rename`]; [`Kind::Weights`](crate::error::Kind::Weights) if the file does not fit; device errors.
pub(super) fn start(
    gpu: &Gpu,
    store: &Store,
    model: Model,
    parameters: &[Parameter],
    file: WeightFile,
    allow_partial: bool,
) -> Result<Vec<String>> {
    let WeightFile { mut tensors, mut notes, .. } = rename(model, parameters, file)?;
    let (fresh, line) = new_head(parameters, &mut tensors);
    notes.extend(line);
    let others: Vec<Parameter> = parameters.iter().filter(|p| !fresh.contains(&p.name)).cloned().collect();
    let difference = load_weights(gpu, store, &others, &tensors, allow_partial)?;
    if !difference.is_empty() {
        notes.push(format!("loaded what fits of the weight file:\n  {}", difference.describe()));
    }
    Ok(notes)
}

/// Takes the file's classifier out if it has another number of classes than the model's. Returns the head's parameters that
/// the file does not have, and a line about them.
fn new_head(parameters: &[Parameter], tensors: &mut Tensors) -> (Vec<String>, Option<String>) {
    let head: Vec<&Parameter> = parameters.iter().filter(|p| p.head).collect();
    let Some(last) = head.last().map(|p| p.layer().to_owned()) else { return (vec![], None) };
    let weight = head.iter().find(|p| p.name == format!("{last}.weight"));
    let [classes, ref inputs @ ..] = *weight.map_or(&[][..], |p| p.file_shape.dims()) else { return (vec![], None) };
    let given = tensors.get(&format!("{last}.weight")).map(|t| t.shape().dims().to_vec());
    let mut replaced = None;
    if let Some([theirs, rest @ ..]) = given.as_deref()
        && *theirs != classes
        && rest == inputs
    {
        replaced = Some(*theirs);
        for kind in ["weight", "bias"] {
            tensors.remove(&format!("{last}.{kind}"));
        }
    }
    // A layer of which the file has only a part is damaged rather than missing.
    let begun = |p: &Parameter| head.iter().any(|q| q.layer() == p.layer() && tensors.contains_key(&q.name));
    let fresh: Vec<String> = head.iter().filter(|p| !begun(p)).map(|p| p.name.clone()).collect();
    // A head of other layers than ours, under the same first name.
    let root = format!("{}.", last.split('.').next().unwrap_or(&last));
    let before = tensors.len();
    if fresh.len() == head.len() {
        tensors.retain(|name, _| !name.starts_with(&root));
    }
    let mut layers: Vec<&str> = fresh.iter().filter_map(|name| name.rsplit_once('.')).map(|(layer, _)| layer).collect();
    layers.dedup();
    let layers = layers.join(", ");
    let line = match replaced {
        _ if fresh.is_empty() => None,
        Some(theirs) => Some(format!(
            "the weight file's classifier has {theirs} classes and the data {classes}: {layers} starts from random values"
        )),
        None if tensors.len() < before => {
            Some(format!("the weight file has another head: {layers} starts from random values"))
        }
        None => Some(format!("the weight file has no classifier: {layers} starts from random values")),
    };
    (fresh, line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::HostTensor;

    fn file(parameters: &[Parameter]) -> Tensors {
        parameters.iter().map(|p| (p.name.clone(), HostTensor::full(p.file_shape.clone(), 0.5))).collect()
    }

    #[test]
    fn only_a_head_for_other_classes_is_replaced() {
        let parameters = |name: &str, classes| Model::find(name).unwrap().summary(64, classes).unwrap().parameters;
        let seven = parameters("resnet18", 7);

        let mut tensors = file(&parameters("resnet18", 1000));
        let (fresh, line) = new_head(&seven, &mut tensors);
        assert_eq!(fresh, ["fc.weight", "fc.bias"]);
        let line = line.unwrap();
        assert!(line.contains("1000 classes and the data 7: fc starts"), "{line}");
        assert!(!tensors.contains_key("fc.weight") && !tensors.contains_key("fc.bias"));

        let mut tensors = file(&seven);
        assert_eq!(new_head(&seven, &mut tensors), (vec![], None));
        assert_eq!(tensors, file(&seven));

        tensors.retain(|name, _| !name.starts_with("fc"));
        let (fresh, line) = new_head(&seven, &mut tensors);
        assert_eq!(fresh.len(), 2);
        assert!(line.unwrap().contains("no classifier"));

        // Half a classifier is not none.
        for half in ["fc.weight", "fc.bias"] {
            let mut tensors = file(&seven);
            tensors.remove(half).unwrap();
            assert_eq!(new_head(&seven, &mut tensors), (vec![], None), "{half}");
        }

        // The block before the classifier is a part of the head.
        let (fresh, _) = new_head(&parameters("resnet50-se", 7), &mut file(&parameters("resnet50", 1000)));
        assert_eq!(fresh.len(), 6);
        assert!(fresh[0].starts_with("se."), "{fresh:?}");

        // Another number of inputs is another model, not another head.
        let (fresh, _) = new_head(&seven, &mut file(&parameters("resnet50", 1000)));
        assert!(fresh.is_empty());
    }
}
