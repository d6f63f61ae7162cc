//! The layout of ISIC 2018 Task 1 (Codella et al., "Skin lesion analysis toward melanoma detection 2018"): pictures in
//! `ISIC2018_Task1-2_{Training,Validation,Test}_Input`, their masks in `ISIC2018_Task1_{...}_GroundTruth` as
//! `ISIC_xxxxxxx_segmentation.png`. There are no classes, and no lesion ids.

use std::path::Path;

use super::dataset::{Dataset, Layout, Masks, Sample, Split, one_part_is_none};
use super::decode::is_image_name;
use super::faults::{FaultKind, Faults};
use super::masks;
use super::tree::{Entry, Tree};
use crate::error::{Error, Kind, Result};

/// The folder (in lower case) that holds a file.
fn folder(entry: &Entry) -> String {
    let folders = entry.path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
}

fn is_truth(entry: &Entry) -> bool {
    folder(entry).contains("groundtruth") && masks::id_of(entry.stem()).is_some()
}

/// Whether a file is a picture: no mask, and not its superpixels, which lie beside the pictures of ISIC 2016 and 2017.
fn is_picture(stem: &str) -> bool {
    masks::id_of(stem).is_none() && !stem.to_ascii_lowercase().ends_with("_superpixels")
}

/// Whether a tree holds masks where this layout has them.
pub(super) fn is_layout(tree: &Tree) -> bool {
    tree.entries.iter().any(is_truth)
}

/// The part a folder's name tells.
fn part(entry: &Entry) -> Split {
    Split::mentioned(&folder(entry))
}

/// Reads the listing of `root`. Pictures without a mask are faults, unless their whole part has none.
pub(super) fn open(tree: &Tree, root: &Path, wanted: &Masks) -> Result<Dataset> {
    if *wanted == Masks::Unused {
        return Err(Error::new(Kind::Data, "this is ISIC 2018 Task 1: it has masks and no classes")
            .at(root.display())
            .next("train a model for segmentation on it, such as --model unet-small"));
    }
    let found = masks::of_tree(tree);
    let with_truth: Vec<Split> = tree.entries.iter().filter(|e| is_truth(e)).map(part).collect();
    let pictures = tree.entries.iter().filter(|e| is_image_name(&e.path) && is_picture(e.stem()));
    let (mut samples, mut faults, mut notes) = (Vec::new(), Faults::default(), Vec::new());
    let mut without = 0;
    for entry in pictures {
        let split = part(entry);
        let mask = found.get(entry.stem()).and_then(|masks| masks.first()).map(|mask| &mask.source);
        if *wanted == Masks::OfDataset && mask.is_none() {
            if with_truth.contains(&split) {
                faults.push(FaultKind::MissingMask, &entry.source, "there is no mask of it");
            } else {
                without += 1;
            }
            continue;
        }
        let mask = mask.cloned();
        samples.push(Sample { mask, split: Some(split), ..Sample::new(entry.stem(), entry.source.clone(), 0, "") });
    }
    if without > 0 {
        notes.push(format!("{without} picture(s) of a part without any mask are not used"));
    }
    notes.push("the dataset names no lesions: each image counts as a lesion of its own".to_owned());
    one_part_is_none(&mut samples);
    let (name, layout) = ("ISIC 2018 Task 1", Layout::Isic2018Task1);
    Ok(Dataset { notes, faults, ..Dataset::new(name, root.display(), layout, [masks::CLASS], samples) })
}
