//! `lesion-gpu report`: a run as a page. Charts come from the run's folder; pictures from its data and, where the model is
//! asked, from the device.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use image::RgbImage;

use super::eval::groups_of;
use super::outline::{DRAWN, FOUND, outlined};
use super::progress::Progress;
use super::{DeviceArgs, LoadArgs, interrupted, say};
use crate::data::{Batch, Dataset, ImageSize, SampleReader, Sheet, Visit, epoch_order, mask_picture, resize_rgb};
use crate::error::{Error, Kind, Result};
use crate::explain::{Explainer, Look, Method, overlay};
use crate::gpu::Gpu;
use crate::metrics::{self, Answers};
use crate::models::{Model, Task};
use crate::report::{Additions, Figure, Image, Part, Table, run_report};
use crate::train::{
    Ensemble, HostModel, Interrupt, Material, ModelSource, Predictor, RunFolder, augmented, mask_maps, mask_of,
    masks_of, read_answers,
};

/// Training pictures on their sheet.
const TRAINING: [usize; 2] = [8, 3];
/// Test pictures that are shown.
const SHOWN: usize = 12;
/// The side of shown pictures in pixels.
const SIDE: usize = 160;

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu report runs/resnet18-001            writes runs/resnet18-001/report.html again
  lesion-gpu report runs/resnet18-001 --no-pictures")]
pub(super) struct ReportArgs {
    /// A finished run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Charts and tables only, without groups of patients: the data are not opened, and no GPU is needed
    #[arg(long)]
    no_pictures: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &ReportArgs, interrupt: &Interrupt) -> Result<()> {
    let folder = RunFolder::open(&args.run)?;
    folder.metrics()?;
    let mut progress = Progress::new();
    let additions = match args.no_pictures {
        true => Additions::default(),
        false => match material(args, &folder, &mut progress, interrupt) {
            Ok(material) => {
                let gpu = args.device.open();
                additions(gpu.as_ref(), &folder, &material, &mut progress, interrupt)?
            }
            Err(e) if e.kind() == Kind::Interrupted => return Err(e),
            Err(e) => Additions { notes: vec![format!("Without pictures: {}.", e.what())], ..Additions::default() },
        },
    };
    additions.notes.iter().for_each(|note| progress.line(&format!("note     {note}")));
    progress.clear();
    run_report(&folder, additions)?.write(folder.path())?;
    say(format!("report: {}", folder.file("report.html").display()));
    Ok(())
}

/// Makes the report of a run that has just ended. That it cannot be made is no fault of the run: then it is said why.
pub(super) fn after_training(
    gpu: &Gpu,
    folder: &RunFolder,
    material: &Material,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Option<String> {
    let made = additions(Ok(gpu), folder, material, progress, interrupt)
        .and_then(|additions| run_report(folder, additions)?.write(folder.path()));
    made.err().map(|e| format!("there is no report: {}; `lesion-gpu report` makes one", e.what()))
}

/// The run's data, split as they were.
fn material(args: &ReportArgs, folder: &RunFolder, progress: &mut Progress, interrupt: &Interrupt) -> Result<Material> {
    let config = folder.config()?;
    let masks = masks_of(Model::find(&config.model)?.task(), &config);
    let dataset = Dataset::open(&config.data, &config.open_options(masks))?;
    let material = Material::prepare(dataset, &config, args.load.cache(), &mut |done, total| {
        progress.show("decoding", done, total, String::new);
        interrupted(interrupt)
    })?;
    folder.check_split(&material.dataset, &material.split)?;
    Ok(material)
}

/// What the data add, and the device where there is one.
fn additions(
    gpu: std::result::Result<&Gpu, &Error>,
    folder: &RunFolder,
    material: &Material,
    progress: &mut Progress,
    interrupt: &Interrupt,
) -> Result<Additions> {
    progress.show("report", 0, 1, String::new);
    let (config, dataset) = (folder.config()?, &material.dataset);
    let groups = dataset.samples.iter().map(|sample| (sample.id.clone(), groups_of(sample))).collect();
    let mut all = Additions { groups, ..Additions::default() };
    match gpu {
        Err(e) => all.notes.push(format!("Without what the model makes of pictures: {}.", e.what())),
        Ok(gpu) => match training_sheet(gpu, folder, material) {
            Ok(figure) => all.training.push(figure),
            Err(e) => all.notes.push(format!("Without training pictures: {}.", e.what())),
        },
    }
    interrupted(interrupt)?;
    let answers = folder.file("test.csv");
    if !answers.is_file() {
        return Ok(all);
    }
    let by_id: HashMap<&str, usize> = dataset.samples.iter().enumerate().map(|(i, s)| (s.id.as_str(), i)).collect();
    let sheet = read_answers(&answers)?;
    let test = match (&sheet.answers, Model::find(&config.model)?.task(), gpu) {
        (Answers::Classes { .. }, _, gpu) => mistakes(gpu.ok(), folder, &sheet, material, &by_id),
        (Answers::Masks(scores), Task::Segment, Ok(gpu)) => overlays(gpu, folder, &sheet, scores, material, &by_id),
        _ => Ok(vec![]),
    };
    match test {
        Ok(parts) => all.test = parts,
        Err(e) => all.notes.push(format!("Without test pictures: {}.", e.what())),
    }
    Ok(all)
}

/// Training pictures as the model saw them in its first epoch.
fn training_sheet(gpu: &Gpu, folder: &RunFolder, material: &Material) -> Result<Figure> {
    let config = folder.config()?;
    let [columns, rows] = TRAINING;
    let order = epoch_order(&material.split.train, config.seed, 0, config.shuffle);
    let visits: Vec<Visit> = order.into_iter().take(columns * rows).collect();
    let seen = augmented(gpu, &config, &material.pixels, &material.split.train, &visits, 0)?;
    let mut sheet = Sheet::new(cell(config.size), columns, visits.len().div_ceil(columns))?;
    let masks = if seen.iter().any(|one| one.mask.is_some()) { " Their masks are outlined." } else { "" };
    for one in seen {
        let picture = match &one.mask {
            Some(mask) => outlined(one.picture, &[(mask, DRAWN)]),
            None => one.picture,
        };
        sheet.push(picture);
    }
    Ok(Figure {
        name: "training",
        alt: format!("{} training pictures after augmentation", visits.len()),
        caption: format!("Training pictures as the model saw them in its first epoch, augmented on the device.{masks}"),
        image: Image::Png(sheet.png()?),
    })
}

/// A cell as large as shown pictures are, of a picture's shape.
fn cell(size: ImageSize) -> ImageSize {
    let long = size.width.max(size.height);
    let side = |side: usize| (side * SIDE).div_ceil(long);
    ImageSize { width: side(size.width), height: side(size.height) }
}

/// The wrong answers that were surest of themselves; with a device also where the model looked.
fn mistakes(
    gpu: Option<&Gpu>,
    folder: &RunFolder,
    sheet: &metrics::Sheet,
    material: &Material,
    by_id: &HashMap<&str, usize>,
) -> Result<Vec<Part>> {
    let dataset = &material.dataset;
    let Answers::Classes { names, labels, predictions, probabilities } = &sheet.answers else { return Ok(vec![]) };
    let sure = |i: usize| probabilities[i * names.len() + predictions[i]];
    let mut wrong: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] != predictions[i]).collect();
    wrong.sort_by(|&a, &b| sure(b).total_cmp(&sure(a)));
    let shown: Vec<(usize, usize)> =
        wrong.iter().filter_map(|&i| Some((i, *by_id.get(sheet.images[i].as_str())?))).take(SHOWN).collect();
    if shown.is_empty() {
        return Ok(vec![Part::Text("No test image was answered wrongly.".to_owned())]);
    }
    let mut reader = SampleReader::default();
    let (mut pictures, mut rows) = (vec![], vec![]);
    for (number, &(i, sample)) in shown.iter().enumerate() {
        pictures.push(reader.picture(&dataset.samples[sample], SIDE.into())?);
        let right = probabilities[i * names.len() + labels[i]];
        rows.push(vec![
            format!("{}", number + 1),
            sheet.images[i].clone(),
            names[labels[i]].clone(),
            format!("{} {:.3}", names[predictions[i]], sure(i)),
            format!("{right:.3}"),
        ]);
    }
    let looked = gpu.map(|gpu| {
        let samples: Vec<usize> = shown.iter().map(|&(_, sample)| sample).collect();
        let answered: Vec<usize> = shown.iter().map(|&(i, _)| predictions[i]).collect();
        // Of small pictures there may be no map.
        match looked(gpu, folder, material, &samples, &answered, &pictures) {
            Ok(figure) => Part::Figure(figure),
            Err(e) => Part::Text(format!("Where the model looked is not shown: {}.", e.what())),
        }
    });
    let figure = Figure {
        name: "mistakes",
        alt: format!("{} test images that were answered wrongly; the table names them", shown.len()),
        caption: format!(
            "The surest of {} wrong answers to {} test images, row by row as in the table.",
            wrong.len(),
            labels.len()
        ),
        image: Image::Png(grid(pictures)?),
    };
    let header = ["no.", "image", "is", "answered", "probability of what it is"].map(str::to_owned).to_vec();
    let table = Table { caption: "The surest wrong answers".to_owned(), header, rows };
    Ok([Part::Figure(figure)].into_iter().chain(looked).chain([Part::Table(table)]).collect())
}

/// Where the model looked for what it answered to pictures.
fn looked(
    gpu: &Gpu,
    folder: &RunFolder,
    material: &Material,
    samples: &[usize],
    answered: &[usize],
    pictures: &[RgbImage],
) -> Result<Figure> {
    let model = HostModel::read(&ModelSource::Run(folder.path().to_owned()))?;
    let look = Look::fine(Model::find(&model.config.model)?, &model.config)?;
    let mut explainer = Explainer::new(gpu, model, samples.len(), &look, None)?;
    let visits: Vec<Visit> = samples.iter().map(|&sample| sample.into()).collect();
    let batch = Batch::assemble(&material.pixels, &material.dataset.labels(), &visits, visits.len())?;
    let classes: Vec<Option<usize>> =
        answered.iter().map(|&class| Some(class).filter(|_| explainer.method() != Method::Rollout)).collect();
    let found = explainer.explain(gpu, &batch, &classes)?;
    let preprocess = &explainer.config.preprocess;
    let overlays = found.iter().zip(pictures).map(|(found, picture)| {
        let map = found.map.on(picture.into(), preprocess.area(picture))?;
        overlay(picture, &map)
    });
    let (method, layer) = (explainer.method(), explainer.layer().unwrap_or("all layers"));
    Ok(Figure {
        name: "looked",
        alt: "The same images, coloured where the model looked".to_owned(),
        caption: format!("What raised those wrong answers, by {method} of {layer}: the lighter, the more."),
        image: Image::Png(grid(overlays.collect::<Result<_>>()?)?),
    })
}

/// Pictures of a dataset, which are mostly of one shape, in rows of four.
fn grid(pictures: Vec<RgbImage>) -> Result<Vec<u8>> {
    let first = pictures.first().map_or(ImageSize::from(SIDE), ImageSize::from);
    let mut sheet = Sheet::new(cell(first), 4, pictures.len().div_ceil(4))?;
    pictures.into_iter().for_each(|picture| sheet.push(picture));
    sheet.png()
}

/// Test pictures with the masks that were drawn and those that the model marks: the worst, and some from the middle.
fn overlays(
    gpu: &Gpu,
    folder: &RunFolder,
    sheet: &metrics::Sheet,
    scores: &[[f64; metrics::compare::MASK_SCORES.len()]],
    material: &Material,
    by_id: &HashMap<&str, usize>,
) -> Result<Vec<Part>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a][1].total_cmp(&scores[b][1]));
    let half = SHOWN / 2;
    let middle = order.len().saturating_sub(half) / 2;
    let usual = order.iter().skip(middle.max(half)).take(half);
    let chosen: Vec<usize> = order.iter().take(half).chain(usual).copied().collect();
    let found: Vec<(usize, usize)> =
        chosen.into_iter().filter_map(|i| Some((i, *by_id.get(sheet.images[i].as_str())?))).collect();
    let source = ModelSource::Run(folder.path().to_owned());
    let predictor = Predictor::load(gpu, &source, found.len().max(1), None, None)?;
    let mut model = Ensemble::new(vec![(source.name(), predictor)])?;
    let recipes = model.preparations();
    let visits: Vec<Visit> = found.iter().map(|&(_, sample)| sample.into()).collect();
    let batch = Batch::assemble(&material.pixels, &material.dataset.labels(), &visits, visits.len())?;
    let (mut reader, mut pictures) = (SampleReader::default(), vec![]);
    model.each_picture(gpu, [Ok(vec![batch])], &mut |_| Ok(()), &mut |number, said| {
        let sample = &material.dataset.samples[found[number].1];
        let (drawn, area) = reader.mask_and_area(sample, &recipes[0])?;
        let own = ImageSize::from(&drawn);
        let mask = mask_of(&mask_maps(said, &recipes, &[area]), own)?;
        let mask = mask_picture(&mask, own)?;
        let picture = resize_rgb(reader.picture(sample, recipes[0].size)?, own);
        pictures.push(outlined(picture, &[(&drawn, DRAWN), (&mask, FOUND)]));
        Ok(())
    })?;
    let header = ["no.", "image", "Dice", "Jaccard"].map(str::to_owned).to_vec();
    let row = |(number, &(i, _)): (usize, &(usize, usize))| {
        let [dice, jaccard, ..] = scores[i];
        vec![format!("{}", number + 1), sheet.images[i].clone(), format!("{dice:.3}"), format!("{jaccard:.3}")]
    };
    let rows = found.iter().enumerate().map(row).collect();
    let figure = Figure {
        name: "overlays",
        alt: format!("{} test images with outlines of lesions; the table names them", found.len()),
        caption: "Test images, row by row as in the table: first the worst, then some from the middle. White is what was drawn, red \
                  what the model marks."
            .to_owned(),
        image: Image::Png(grid(pictures)?),
    };
    let table = Table { caption: "The test images shown, at the size the model sees".to_owned(), header, rows };
    Ok(vec![Part::Figure(figure), Part::Table(table)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_the_shape_of_pictures() {
        assert_eq!(cell(ImageSize { width: 600, height: 450 }), ImageSize { width: 160, height: 120 });
        assert_eq!(cell(64.into()), SIDE.into());
    }
}
