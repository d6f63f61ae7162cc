//! Where models look, against PyTorch: `tests/goldens/make_explain.py`.

use std::collections::BTreeMap;

use image::RgbImage;
use lesion_gpu::data::{Batch, ImageSize};
use lesion_gpu::explain::{Explainer, Explanation, Look, Method};
use lesion_gpu::gpu::Gpu;
use lesion_gpu::models::Model;
use lesion_gpu::nn::Parameter;
use lesion_gpu::tensor::HostTensor;
use lesion_gpu::train::{HostModel, Normalisation, TrainConfig};
use serde::Deserialize;

use super::{Moved, drawn, drawn_weight, folder, read};
use crate::common;

const CLASSES: usize = 7;
/// Largest difference of a value of a map whose largest is one.
const MAP: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    seed: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    height: usize,
    width: usize,
    /// The class to be explained of each picture, or none for the predicted one.
    asked: Vec<Option<usize>>,
    /// The class that is explained.
    classes: Vec<usize>,
    moved: Vec<Moved>,
    maps: Vec<Map>,
}

#[derive(Deserialize)]
struct Map {
    /// None for the default.
    layer: Option<String>,
    name: String,
    method: String,
    /// Rows and columns.
    grid: [usize; 2],
    /// One picture after the other.
    values: Vec<f32>,
}

impl Case {
    fn size(&self) -> ImageSize {
        ImageSize { width: self.width, height: self.height }
    }

    fn model(&self, seed: u32) -> HostModel {
        let model = Model::find(&self.model).unwrap();
        let classes: Vec<String> = (0..model.outputs(CLASSES)).map(|i| i.to_string()).collect();
        let config = TrainConfig { size: self.size(), normalisation: Normalisation::Tf, ..TrainConfig::of(model) };
        let parameters = parameters(model, &config, classes.len());
        let mut weights: BTreeMap<String, HostTensor> = parameters
            .iter()
            .map(|p| (p.name.clone(), HostTensor::new(p.file_shape.clone(), drawn_weight(&self.model, seed, p))))
            .collect();
        for moved in &self.moved {
            let tensor = weights.get_mut(&moved.name).unwrap_or_else(|| panic!("{}: {}", self.model, moved.name));
            let (shape, mut data) = (tensor.shape().clone(), tensor.data().to_vec());
            moved.indices.iter().zip(&moved.values).for_each(|(&i, &value)| data[i] = value);
            *tensor = HostTensor::new(shape, data);
        }
        HostModel { config, classes, temperature: None, weights, allow_partial: false, notes: vec![] }
    }

    fn pictures(&self, seed: u32) -> Vec<RgbImage> {
        let (height, width, count) = (self.height, self.width, self.asked.len());
        let bytes = drawn(seed, "batch/0/images", count * height * width * 3, |u| (256.0 * u).floor());
        let pictures = bytes.chunks_exact(height * width * 3);
        pictures
            .map(|picture| {
                let bytes = picture.iter().map(|&byte| byte as u8).collect();
                RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()
            })
            .collect()
    }

    fn explainer(&self, gpu: &Gpu, seed: u32, map: &Map, batch: usize) -> Explainer {
        let method: Method = map.method.parse().unwrap();
        // What is the default is not named.
        let by_default = map.layer.is_none() && (method == Method::GradCam) != self.model.starts_with("vit");
        let look = Look { method: (!by_default).then_some(method), layer: map.layer.clone() };
        let explainer = Explainer::new(gpu, self.model(seed), batch, &look, None).unwrap();
        assert_eq!(explainer.method(), method, "{}", self.model);
        assert_eq!(explainer.layer(), (method != Method::Rollout).then_some(map.name.as_str()), "{}", self.model);
        explainer
    }
}

/// The parameters of a model at its own size, on which a transformer's embedding depends.
fn parameters(model: Model, config: &TrainConfig, outputs: usize) -> Vec<Parameter> {
    lesion_gpu::train::TracedModel::from_pixels(model, config, 1, outputs).unwrap().parameters
}

#[test]
fn maps_equal_pytorch() {
    if !folder().join("explain.json").exists() {
        eprintln!("skipped: there is no explain.json in the given folder");
        return;
    }
    let golden: Golden = read("explain.json");
    assert!(golden.cases.len() >= 8);
    let Some(gpu) = common::gpu() else { return };
    let mut failures = vec![];
    for case in &golden.cases {
        let pictures = case.pictures(golden.seed);
        for map in &case.maps {
            let mut explainer = case.explainer(&gpu, golden.seed, map, pictures.len());
            let batch = Batch::of_pictures(&pictures, case.size(), pictures.len());
            let found = explainer.explain(&gpu, &batch, &case.asked).unwrap();
            let what = format!("{} {} of {}", case.model, map.method, map.name);
            let error = compare(&what, case, map, &found);
            eprintln!("    {error:8.1e}  {what}");
            if error.is_nan() || error > MAP {
                failures.push(format!("{what}: {error:.2e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The largest difference of the maps of all pictures.
fn compare(what: &str, case: &Case, map: &Map, found: &[Explanation]) -> f32 {
    let [height, width] = map.grid;
    assert_eq!(map.values.len(), found.len() * height * width, "{what}");
    let mut largest = 0.0_f32;
    for ((found, theirs), &class) in found.iter().zip(map.values.chunks_exact(height * width)).zip(&case.classes) {
        assert_eq!(found.map.size, ImageSize { width, height }, "{what}");
        // Attention says the same of all classes.
        if map.method != "rollout" {
            assert_eq!(found.class, class, "{what}");
        }
        let difference = |(a, b): (&f32, &f32)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() };
        let differences = found.map.normalised().iter().zip(theirs).map(difference).fold(0.0, f32::max);
        largest = largest.max(differences);
    }
    largest
}
