//! Pictures named on the command line: decoded ahead of the device, set aside where they cannot be read, and answered in
//! order. Of many thousands no more are in memory than a few batches.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use image::RgbImage;
use rayon::prelude::*;

use super::answers::{Answer, Answers, Format};
use super::interrupted;
use super::progress::Progress;
use crate::data::preprocess::Area;
use crate::data::{Batch, ImageSize, Preparation, decode_rgb_file, list_images};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::train::{Ensemble, Interrupt, Said};

/// The pictures that paths name: files, those directly inside folders, those that a pattern fits, and for `-` those that
/// standard input names so, one a line.
///
/// # Errors
/// Those of [`list_images`]; [`Kind::Usage`] if there are none, or none for a pattern; [`Kind::Io`] if standard input cannot be
/// read.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for path in paths {
        if path.as_os_str() != "-" {
            files.extend(find_one(path)?);
            continue;
        }
        for line in std::io::stdin().lines() {
            let line = line.map_err(|e| Error::io("read the list of pictures", Path::new("standard input"), &e))?;
            if !line.trim().is_empty() {
                files.extend(find_one(line.trim().as_ref())?);
            }
        }
    }
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, "no pictures are named").next("name pictures or folders after the run"));
    }
    Ok(files)
}

/// The pictures that a path names.
fn find_one(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return list_images(path);
    }
    let text = path.to_string_lossy();
    // A file may be called like a pattern.
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let bad = |what: String| Error::new(Kind::Usage, what).at(&text).next("name pictures, folders or another pattern");
    let found = glob::glob(&text).map_err(|e| bad(format!("this is no pattern: {e}")))?;
    let files: Vec<PathBuf> = found.filter_map(|path| path.ok()).filter(|path| path.is_file()).collect();
    if files.is_empty() { Err(bad("no file fits this pattern".to_owned())) } else { Ok(files) }
}

/// A picture that was read.
pub(super) struct Loaded {
    /// Its place among the files.
    pub index: usize,
    /// Its own size, which is not the model's.
    pub own: ImageSize,
    /// The part of it that each model sees.
    pub areas: Vec<Area>,
}

/// How answers are made and printed.
pub(super) struct Job<'a> {
    pub files: &'a [PathBuf],
    /// Pictures at a time.
    pub batch: usize,
    pub format: Format,
    /// The columns of a table of answers.
    pub columns: &'a [&'a str],
    pub interrupt: &'a Interrupt,
}

impl Job<'_> {
    /// Asks `answer` for what there is to say of each picture by what each model says, and prints it.
    ///
    /// # Errors
    /// As [`each`](Self::each); those of the model and of `answer`.
    pub fn run<A: Answer>(
        &self,
        gpu: &Gpu,
        models: &mut Ensemble,
        answer: &mut dyn FnMut(&Loaded, &[Said]) -> Result<A>,
    ) -> Result<()> {
        self.each("predicting", models.preparations(), &mut |pictures, show, print| {
            models.each_picture(gpu, pictures, show, &mut |_, said| print(&mut |loaded| answer(loaded, said)))
        })
    }

    /// Hands the pictures that can be read, made as each of `recipes` says, to `model`, and prints its answers. Pictures that cannot be
    /// read are named and left out, which is an error at the end. Where nobody reads the answers any more, the work ends.
    ///
    /// # Errors
    /// [`Kind::Data`] for pictures that could not be read; if there is only one, that picture's own error;
    /// [`Kind::Interrupted`]; [`Kind::Io`] for answers that cannot be written; those of `model`.
    pub fn each<A: Answer>(&self, doing: &str, recipes: Vec<Preparation>, model: Model<'_, A>) -> Result<()> {
        let total = self.files.len();
        let pictures = Pictures::read(self.files, recipes, self.batch, self.interrupt)?;
        let seen = Rc::clone(&pictures.seen);
        let mut answers = Answers::begin(self.format, self.columns, &mut seen.progress.borrow_mut())?;
        let mut show = |_| {
            seen.progress.borrow_mut().show(doing, seen.files.get(), total, String::new);
            interrupted(self.interrupt)
        };
        let result = model(pictures, &mut show, &mut |answer| {
            let next = seen.loaded.borrow_mut().pop_front();
            let loaded = next.ok_or_else(|| Error::new(Kind::Internal, "an answer without a picture"))?;
            answers.print(&answer(&loaded)?, &mut seen.progress.borrow_mut())
        });
        let result = result.and_then(|()| answers.end(&mut seen.progress.borrow_mut()));
        seen.progress.borrow_mut().clear();
        if answers.closed {
            return Ok(());
        }
        result?;
        seen.verdict(total)
    }
}

/// What answers to pictures: it is given their batches, those of all recipes together, what to call with the batches done, and what to call for each picture
/// in order with the answer to it.
type Model<'m, A> = &'m mut dyn FnMut(Pictures, &mut dyn FnMut(usize) -> Result<()>, Print<'_, A>) -> Result<()>;

/// Prints the answer to the next picture.
type Print<'p, A> = &'p mut dyn FnMut(&mut dyn FnMut(&Loaded) -> Result<A>) -> Result<()>;

/// The files that come of each picture: its name in `folder`, with each of these endings. None is there yet, and no two are the
/// same. `what` is what comes of a picture, in a word.
///
/// # Errors
/// [`Kind::Io`] for a file that is there, [`Kind::Usage`] for pictures of one name.
pub(super) fn targets<const N: usize>(
    files: &[PathBuf],
    folder: &Path,
    endings: [&str; N],
    what: &str,
) -> Result<Vec<[PathBuf; N]>> {
    let mut seen: HashMap<String, &Path> = HashMap::new();
    let mut targets = vec![];
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let own = endings.map(|ending| folder.join(format!("{stem}{ending}")));
        if let Some(there) = own.iter().find(|target| target.exists()) {
            return Err(Error::new(Kind::Io, format!("the {what} is there already, and nothing is overwritten"))
                .at(there.display())
                .next("choose another --out"));
        }
        // Many file systems do not tell large letters from small ones.
        if let Some(other) = seen.insert(stem.to_lowercase(), file) {
            let (one, two) = (other.display(), file.display());
            return Err(Error::new(Kind::Usage, format!("{one} and {two} would have one and the same {what}"))
                .at(own.first().unwrap_or(file).display())
                .next("give pictures of the same name one after the other, each with an --out of its own"));
        }
        targets.push(own);
    }
    Ok(targets)
}

/// What has come of the files.
struct Seen {
    progress: RefCell<Progress>,
    /// Those read whose answer is awaited.
    loaded: RefCell<VecDeque<Loaded>>,
    /// How many were looked at.
    files: Cell<usize>,
    /// What was wrong with those that could not be read.
    faults: RefCell<Vec<Error>>,
}

impl Seen {
    fn verdict(&self, total: usize) -> Result<()> {
        let mut faults = self.faults.borrow_mut();
        match faults.len() {
            0 => Ok(()),
            1 if total == 1 => Err(faults.remove(0)),
            bad => {
                Err(Error::new(Kind::Data, format!("{bad} of {total} pictures could not be read and were left out"))
                    .next("mend what is said of each above, then name those alone"))
            }
        }
    }
}

/// What a few files have become.
struct Chunk {
    /// For each model.
    batches: Vec<Batch>,
    loaded: Vec<Loaded>,
    faults: Vec<(PathBuf, Error)>,
    files: usize,
}

/// The batches, for each model, of the pictures that can be read.
pub(super) struct Pictures {
    chunks: Receiver<Chunk>,
    /// How many chunks are still to come.
    left: usize,
    /// Whether a fault is told at once, and not as the program's error.
    many: bool,
    interrupt: Interrupt,
    seen: Rc<Seen>,
}

/// While a picture is waited for, the user's wish to stop is looked at this often.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Pictures {
    /// Begins to read `files` in the background, in batches of `rows` pictures made as each of `recipes` says.
    fn read(files: &[PathBuf], recipes: Vec<Preparation>, rows: usize, interrupt: &Interrupt) -> Result<Self> {
        // One batch waits while the next is decoded.
        let (sender, chunks) = sync_channel(1);
        let (left, many) = (files.len().div_ceil(rows), files.len() > 1);
        let files = files.to_vec();
        let work = move || {
            for (number, part) in files.chunks(rows).enumerate() {
                // An error says that nobody listens any more.
                if sender.send(decode(part, number * rows, &recipes, rows)).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("pictures".to_owned()).spawn(work);
        spawned.map_err(|e| Error::new(Kind::OutOfMemory, format!("no thread to decode pictures: {e}")))?;
        let seen = Rc::new(Seen {
            progress: RefCell::new(Progress::quiet_in_a_pipe()),
            loaded: RefCell::default(),
            files: Cell::default(),
            faults: RefCell::default(),
        });
        Ok(Self { chunks, left, many, interrupt: Arc::clone(interrupt), seen })
    }
}

/// Decodes pictures exactly as the training of each model did; `first` is the first one's place among all.
fn decode(files: &[PathBuf], first: usize, recipes: &[Preparation], rows: usize) -> Chunk {
    let read = |file: &Path| {
        let picture = decode_rgb_file(file)?;
        let own = ImageSize::from(&picture);
        let (made, areas): (Vec<RgbImage>, Vec<Area>) = Preparation::make_each(recipes, picture).into_iter().unzip();
        Ok((made, own, areas))
    };
    let results: Vec<Result<_>> = files.par_iter().map(|file| read(file)).collect();
    let (mut pictures, mut loaded, mut faults) = (vec![vec![]; recipes.len()], vec![], vec![]);
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Ok((made, own, areas)) => {
                pictures.iter_mut().zip(made).for_each(|(of_model, picture)| of_model.push(picture));
                loaded.push(Loaded { index: first + number, own, areas });
            }
            Err(fault) => faults.push((files[number].clone(), fault)),
        }
    }
    let batches = pictures.iter().zip(recipes).map(|(p, recipe)| Batch::of_pictures(p, recipe.size, rows)).collect();
    Chunk { batches, loaded, faults, files: files.len() }
}

impl Iterator for Pictures {
    type Item = Result<Vec<Batch>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            if let Err(e) = interrupted(&self.interrupt) {
                return Some(Err(e));
            }
            let chunk = match self.chunks.recv_timeout(LOOK_UP) {
                Ok(chunk) => chunk,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    self.left = 0;
                    return Some(Err(Error::new(Kind::Internal, "the thread that decodes pictures ended early")));
                }
            };
            self.left -= 1;
            self.seen.files.set(self.seen.files.get() + chunk.files);
            for (file, fault) in chunk.faults {
                if self.many {
                    let text = format!("skipped: {}: {}", file.display(), fault.what());
                    self.seen.progress.borrow().complain(&text);
                }
                self.seen.faults.borrow_mut().push(fault);
            }
            if !chunk.loaded.is_empty() {
                self.seen.loaded.borrow_mut().extend(chunk.loaded);
                return Some(Ok(chunk.batches));
            }
        }
        None
    }
}
