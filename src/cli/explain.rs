//! `lesion-gpu explain`

use std::path::{Path, PathBuf};

use clap::Args;
use image::RgbImage;
use serde::Serialize;

use super::answers::{Answer, Format};
use super::pictures::{self, Job, Loaded, targets};
use super::source::ModelArgs;
use super::{DeviceArgs, TuningArgs};
use crate::data::preprocess::Area;
use crate::data::{ImageSize, SampleReader, Sheet, Source, decode_rgb_file, masks_of_files, png_of};
use crate::error::{Error, Kind, Result};
use crate::explain::{Explainer, Explanation, Look, Method, heat_map, overlay, share_inside};
use crate::parallel::Team;
use crate::train::{HostModel, Interrupt};
use crate::weights::write_atomically;

/// What the files of a picture add to its name.
const ENDINGS: [&str; 3] = ["_overlay.png", "_heat.png", "_cam.npy"];
/// The columns of a table of answers.
const COLUMNS: [&str; 8] = ["image", "class", "probability", "inside", "lesion", "overlay", "heat", "raw"];
/// Pictures below each other on a sheet.
const ROWS: usize = 100;
/// A cell of a sheet.
const CELL: ImageSize = ImageSize { width: 256, height: 192 };

#[derive(Debug, Args)]
#[command(before_help = "\
Examples:
  lesion-gpu explain runs/resnet18-001 photo.jpg
  lesion-gpu explain runs/resnet18-001 photos/ --sheet sheet.png --masks masks/
  lesion-gpu explain runs/resnet18-001 photo.jpg --class mel --method grad-cam++ --layer layer3
  lesion-gpu explain --model resnet18 --weights w.safetensors photo.jpg --raw --format json")]
pub(super) struct ExplainArgs {
    /// A run folder or checkpoint (unless --model and --weights are given), then pictures and folders of pictures
    #[arg(value_name = "RUN|PICTURE", required = true)]
    paths: Vec<PathBuf>,
    /// Folder for NAME_overlay.png and NAME_heat.png of each NAME.jpg, as large as the picture. Nothing is overwritten
    #[arg(long, value_name = "DIR", default_value = "explained")]
    out: PathBuf,
    /// Also write NAME_cam.npy: the map at the layer's resolution, float32 [rows, columns], at the model's own scale
    #[arg(long)]
    raw: bool,
    /// grad-cam, grad-cam++, or of transformers rollout [default: rollout of transformers, else grad-cam]
    #[arg(long)]
    method: Option<Method>,
    /// The layer to look at, as weight files name it, such as layer3 or layer4.1.conv2 [default: the last one with a map; of
    /// a model that segments the one with the smallest map]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// The class to explain [default: the predicted one of each picture]
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Masks of the lesions, a folder or archive with NAME_segmentation.png for NAME.jpg, or one file for one picture: says
    /// which share of the map lies inside
    #[arg(long, value_name = "PLACE")]
    masks: Option<PathBuf>,
    /// A PNG file of all pictures, a row each: picture, map, overlay, and what was said. Nothing is overwritten
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Pictures at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    tuning: TuningArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What there is to say of a picture.
#[derive(Debug, Serialize)]
struct Explained {
    image: String,
    class: String,
    /// Of that class; none of a model that segments.
    probability: Option<f64>,
    method: &'static str,
    /// None where all layers count.
    layer: Option<String>,
    /// The map's largest value, at the model's own scale.
    peak: f32,
    /// The share of the map inside the lesion's mask, if there is one and the map is not empty.
    inside: Option<f64>,
    /// The share of the picture inside that mask.
    lesion: Option<f64>,
    overlay: String,
    heat: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
}

impl Explained {
    fn class_and_probability(&self) -> String {
        let probability = self.probability.map_or(String::new(), |p| format!(" {p:.4}"));
        format!("{}{probability}", self.class)
    }

    /// Whether nothing speaks for the class.
    fn is_empty(&self) -> bool {
        self.peak == 0.0
    }

    /// What there is to say of the map, for a line.
    fn found(&self) -> String {
        match (self.inside, self.lesion) {
            _ if self.is_empty() => ", nothing speaks for it".to_owned(),
            (Some(inside), Some(lesion)) => {
                format!(", {:.1} % inside the lesion ({:.1} % of the picture)", 100.0 * inside, 100.0 * lesion)
            }
            _ => String::new(),
        }
    }

    /// The same and all else for a sheet, where lines are short.
    fn lines(&self, name: String) -> Vec<String> {
        let share = |share: Option<f64>, of: &str| share.map(|share| format!("{:.1} % {of}", 100.0 * share));
        let empty = self.is_empty().then(|| "nothing for it".to_owned());
        let head = [name, self.class_and_probability(), self.method.to_owned()].into_iter().chain(self.layer.clone());
        head.chain(empty).chain(share(self.inside, "inside")).chain(share(self.lesion, "is lesion")).collect()
    }
}

impl Answer for Explained {
    fn line(&self) -> String {
        let layer = self.layer.as_ref().map_or(String::new(), |layer| format!(" of {layer}"));
        let (what, method, found) = (self.class_and_probability(), self.method, self.found());
        format!("{}: {what}, {method}{layer}{found}: {}", self.image, self.overlay)
    }

    fn row(&self) -> Vec<String> {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
        let [probability, inside, lesion] = [self.probability, self.inside, self.lesion].map(number);
        let files = [self.overlay.clone(), self.heat.clone(), self.raw.clone().unwrap_or_default()];
        let said = [self.image.clone(), self.class.clone(), probability, inside, lesion];
        said.into_iter().chain(files).collect()
    }
}

pub(super) fn run(args: &ExplainArgs, interrupt: &Interrupt) -> Result<()> {
    let (run, paths) = match args.model.given() {
        true => (None, args.paths.as_slice()),
        false => (args.paths.first().cloned(), &args.paths[1..]),
    };
    let source = args.model.source(run)?;
    let team = Team::default();
    let files = pictures::find(paths, &team)?;
    let model = HostModel::read(&source)?;
    let targets = targets(&files, &args.out, ENDINGS, "map")?;
    let sheet = args.sheet.as_deref().map(|file| new_sheet(file, files.len())).transpose()?;
    let masks = args.masks.as_deref().map(|place| find_masks(place, &files)).transpose()?;
    let gpu = args.device.open()?;
    let batch = (args.batch as usize).min(files.len());
    let look = Look { method: args.method, layer: args.layer.clone() };
    let mut explainer = Explainer::new(&gpu, model, batch, &look, args.tuning.cache(&gpu).as_ref())?;
    let class = args.class.as_deref().map(|name| explainer.class(name)).transpose()?;
    explainer.notes.iter().chain(&explainer.difference.note()).for_each(|note| eprintln!("note: {note}"));
    if let Some(temperature) = explainer.temperature {
        eprintln!("note: probabilities are calibrated, by a temperature of {temperature:.4}");
    }
    std::fs::create_dir_all(&args.out).map_err(|e| Error::io("create the folder of maps", &args.out, &e))?;
    let mut drawing = Drawing {
        files: &files,
        targets: &targets,
        raw: args.raw,
        method: explainer.method().name(),
        layer: explainer.layer().map(str::to_owned),
        classes: explainer.classes.clone(),
        masks,
        reader: SampleReader::default(),
        faults: vec![],
        sheet,
    };
    let job = Job { files: &files, batch, format: args.format, columns: &COLUMNS, team: &team, interrupt };
    let recipe = explainer.config.preparation();
    let outcome = job.each("explaining", vec![recipe], &mut |pictures, show, print| {
        for (done, batches) in pictures.enumerate() {
            // One recipe makes one batch at a time.
            for batch in batches? {
                for found in explainer.explain(&gpu, &batch, &vec![class; batch.valid])? {
                    print(&mut |loaded| drawing.draw(loaded, &found))?;
                }
            }
            show(done + 1)?;
        }
        Ok(())
    });
    // What was explained beside pictures that cannot be read is still shown.
    let done = !matches!(&outcome, Err(e) if e.kind() != Kind::Data);
    if let (Some(sheet), Some(file)) = (drawing.sheet.take().filter(|sheet| done && !sheet.is_empty()), &args.sheet) {
        free(file)?;
        write_atomically(file, &sheet.trimmed().png()?)?;
    }
    outcome?;
    drawing.verdict()
}

/// A sheet for so many pictures, to be written to a file that is not there.
fn new_sheet(file: &Path, pictures: usize) -> Result<Sheet> {
    free(file)?;
    // So many that fit below each other, then side by side.
    let beside = pictures.div_ceil(ROWS).max(1);
    Sheet::new(CELL, 4 * beside, pictures.div_ceil(beside))
}

/// Refuses a file for the sheet that is there.
fn free(file: &Path) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    Err(Error::new(Kind::Io, "the sheet is there already, and nothing is overwritten")
        .at(file.display())
        .next("choose another --sheet"))
}

/// The mask of each picture. Those that have none are named.
fn find_masks(place: &Path, files: &[PathBuf]) -> Result<Vec<Option<Source>>> {
    let found = masks_of_files(place, files)?;
    let named = found.into_iter().zip(files);
    Ok(named.map(|(mask, file)| mask.map_err(|why| eprintln!("note: {}: {why}", file.display())).ok()).collect())
}

/// What is drawn of pictures.
struct Drawing<'a> {
    files: &'a [PathBuf],
    targets: &'a [[PathBuf; 3]],
    raw: bool,
    method: &'static str,
    layer: Option<String>,
    classes: Vec<String>,
    masks: Option<Vec<Option<Source>>>,
    reader: SampleReader,
    /// What was wrong with masks.
    faults: Vec<Error>,
    sheet: Option<Sheet>,
}

impl Drawing<'_> {
    /// Writes the files of a picture.
    fn draw(&mut self, loaded: &Loaded, found: &Explanation) -> Result<Explained> {
        let [on_picture, heat, raw] = &self.targets[loaded.index];
        let file = &self.files[loaded.index];
        // Decoded once more: at their own size, the pictures of a batch may be too large to be kept.
        let picture = decode_rgb_file(file)?;
        let area = loaded.areas.first().copied().unwrap_or(Area::whole(loaded.own));
        let map = found.map.on(loaded.own, area)?;
        let drawn = [overlay(&picture, &map)?, heat_map(&map, loaded.own)?];
        let [first, second] = &drawn;
        let (first, second) = rayon::join(|| save(first, on_picture), || save(second, heat));
        first.and(second)?;
        if self.raw {
            write_atomically(raw, &found.map.npy())?;
        }
        let mask = self.mask(loaded);
        let explained = Explained {
            image: file.display().to_string(),
            class: self.classes.get(found.class).cloned().unwrap_or_default(),
            probability: found.probability,
            method: self.method,
            layer: self.layer.clone(),
            peak: found.map.peak(),
            inside: mask.as_ref().and_then(|mask| share_inside(&map, mask.iter().copied())),
            lesion: mask.and_then(|mask| share_inside(&vec![1.0; mask.len()], mask)),
            overlay: on_picture.display().to_string(),
            heat: heat.display().to_string(),
            raw: self.raw.then(|| raw.display().to_string()),
        };
        if let Some(sheet) = &mut self.sheet {
            let [overlay, heat] = drawn;
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            [picture, heat, overlay].into_iter().for_each(|picture| sheet.push_whole(picture));
            sheet.push_text(&explained.lines(name));
        }
        Ok(explained)
    }

    /// A picture's mask, pixel by pixel. What is wrong with it is told at once, and is an error at the end.
    fn mask(&mut self, loaded: &Loaded) -> Option<Vec<bool>> {
        let source = self.masks.as_ref()?.get(loaded.index)?.as_ref()?;
        match self.reader.mask_at(source, loaded.own) {
            Ok(mask) => Some(mask.pixels().map(|p| p[0] > 0).collect()),
            Err(fault) => {
                eprintln!("left out: {source}: {}", fault.what());
                self.faults.push(fault);
                None
            }
        }
    }

    fn verdict(mut self) -> Result<()> {
        match self.faults.len() {
            0 => Ok(()),
            1 => Err(self.faults.remove(0)),
            bad => Err(Error::new(Kind::Data, format!("{bad} masks could not be used: what lies inside is not known"))
                .next("mend what is said of each above")),
        }
    }
}

fn save(picture: &RgbImage, target: &Path) -> Result<()> {
    write_atomically(target, &png_of(picture)?)
}
