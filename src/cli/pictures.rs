//! Pictures named on the command line: decoded ahead of the device, set aside where they cannot be read, and answered in
//! order. Of many thousands no more are in memory than a few batches. Several ranks take batches in turn, and rank 0 prints
//! what they answer.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::answers::{Answer, Answers, Format};
use super::interrupted;
use super::progress::Progress;
use crate::data::preprocess::Area;
use crate::data::{Batch, ImageSize, Preparation, decode_rgb_file, list_images};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::parallel::Team;
use crate::train::{Ensemble, Interrupt, Said};

/// The pictures that paths name: files, those directly inside folders, those that a pattern fits, and for `-` those that
/// standard input names so, one a line: that of rank 0, the only one that `mpirun` gives any.
///
/// # Errors
/// Those of [`list_images`]; [`Kind::Usage`] if there are none, or none for a pattern; [`Kind::Io`] if standard input cannot be
/// read; [`Kind::Data`] if another rank sees others.
pub(super) fn find(paths: &[PathBuf], team: &Team) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    for path in paths {
        if path.as_os_str() != "-" {
            files.extend(find_one(path)?);
            continue;
        }
        let fail = |e: &std::io::Error| Error::io("read the list of pictures", Path::new("standard input"), e);
        let lines = team.of_first("the list of pictures", || {
            std::io::read_to_string(std::io::stdin()).map(String::into_bytes).map_err(|e| fail(&e))
        })?;
        for line in String::from_utf8_lossy(&lines).lines().map(str::trim).filter(|line| !line.is_empty()) {
            files.extend(find_one(line.as_ref())?);
        }
    }
    if files.is_empty() {
        return Err(Error::new(Kind::Usage, "no pictures are named").next("name pictures or folders after the run"));
    }
    let mut hash = blake3::Hasher::new();
    files.iter().for_each(|file| {
        hash.update(file.as_os_str().as_encoded_bytes()).update(b"\0");
    });
    let all = team.exchange("the pictures", Ok(hash.finalize().as_bytes().to_vec()))?;
    match all.iter().position(|other| *other != all[0]) {
        None => Ok(files),
        Some(rank) => Err(Error::new(Kind::Data, format!("rank {rank} sees other pictures than rank 0"))
            .next("put them where all ranks see them, under the same path")),
    }
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
    pub team: &'a Team,
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

    /// Hands the pictures that can be read, made as each of `recipes` says, to `model`, and prints its answers. Pictures that cannot
    /// be read are named and left out, which is an error at the end. Where nobody reads the answers any more, the work ends.
    ///
    /// # Errors
    /// [`Kind::Data`] for pictures that could not be read; if there is only one, that picture's own error;
    /// [`Kind::Interrupted`]; [`Kind::Io`] for answers that cannot be written; those of `model`, and those of other ranks.
    pub fn each<A: Answer>(&self, doing: &str, recipes: Vec<Preparation>, model: Model<'_, A>) -> Result<()> {
        let pictures = Pictures::read(self, recipes)?;
        let printer = RefCell::new(Printer::begin(self, Rc::clone(&pictures.turns))?);
        let mut show = |_| {
            printer.borrow_mut().show(doing);
            interrupted(self.interrupt)
        };
        let result = model(pictures, &mut show, &mut |answer| {
            let loaded = printer.borrow_mut().next()?;
            let text = self.format.text(&answer(&loaded)?)?;
            printer.borrow_mut().take(text)
        });
        let mut printer = printer.into_inner();
        let result = result.and_then(|()| printer.end());
        printer.progress.clear();
        if printer.is_unread() {
            return Ok(());
        }
        result?;
        printer.verdict()
    }

    /// How many batches the pictures are.
    fn batches(&self) -> usize {
        self.files.len().div_ceil(self.batch)
    }
}

/// What answers to pictures: it is given their batches, those of all recipes together, what to call with the batches done, and what to
/// call for each picture in order with the answer to it.
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

/// What has come of files.
#[derive(Default, Serialize, Deserialize)]
struct Outcome {
    /// How many were looked at.
    files: usize,
    /// Those that could not be read, and why.
    faults: Vec<(String, Error)>,
    /// What is printed of the others, in order.
    answers: Vec<String>,
}

/// A batch some of whose answers are awaited.
struct Turn {
    awaited: VecDeque<Loaded>,
    outcome: Outcome,
}

/// Prints what comes of pictures. Of several ranks the first prints, in order, what each has made of a batch.
struct Printer<'a> {
    job: &'a Job<'a>,
    turns: Rc<RefCell<VecDeque<Turn>>>,
    /// None where another rank prints.
    answers: Option<Answers>,
    progress: Progress,
    /// How often ranks are still to tell of a batch.
    rounds: usize,
    files: usize,
    faults: Vec<Error>,
}

impl<'a> Printer<'a> {
    fn begin(job: &'a Job<'a>, turns: Rc<RefCell<VecDeque<Turn>>>) -> Result<Self> {
        let mut progress = Progress::quiet_in_a_pipe();
        let begin = || Answers::begin(job.format, job.columns, &mut progress);
        let answers = job.team.is_first().then(begin).transpose()?;
        let rounds = job.batches().div_ceil(job.team.size());
        Ok(Self { job, turns, answers, progress, rounds, files: 0, faults: vec![] })
    }

    fn show(&mut self, doing: &str) {
        if self.answers.is_some() {
            self.progress.show(doing, self.files, self.job.files.len(), String::new);
        }
    }

    /// The picture that is answered to next.
    fn next(&mut self) -> Result<Loaded> {
        self.settle()?;
        let next = self.turns.borrow_mut().front_mut().and_then(|turn| turn.awaited.pop_front());
        next.ok_or_else(|| Error::new(Kind::Internal, "an answer without a picture"))
    }

    /// Takes what is printed of that picture.
    fn take(&mut self, text: String) -> Result<()> {
        if let Some(turn) = self.turns.borrow_mut().front_mut() {
            turn.outcome.answers.push(text);
        }
        self.settle()
    }

    /// Tells of what is known: of whole batches where others wait for their turn.
    fn settle(&mut self) -> Result<()> {
        loop {
            let turn = {
                let mut turns = self.turns.borrow_mut();
                match turns.front_mut() {
                    None => return Ok(()),
                    Some(turn) if turn.awaited.is_empty() => turns.pop_front(),
                    Some(turn) if self.job.team.is_alone() => {
                        let outcome = std::mem::take(&mut turn.outcome);
                        drop(turns);
                        return self.tell(outcome);
                    }
                    Some(_) => return Ok(()),
                }
            };
            self.exchange(turn.map(|turn| turn.outcome).unwrap_or_default())?;
        }
    }

    /// Tells of a batch of each rank.
    fn exchange(&mut self, outcome: Outcome) -> Result<()> {
        self.rounds = self.rounds.saturating_sub(1);
        if self.job.team.is_alone() {
            return self.tell(outcome);
        }
        let bad = |e: serde_json::Error| Error::new(Kind::Internal, format!("answers cannot be sent: {e}"));
        for outcome in self.job.team.exchange("the answers", serde_json::to_vec(&outcome).map_err(bad))? {
            self.tell(serde_json::from_slice(&outcome).map_err(bad)?)?;
        }
        Ok(())
    }

    fn tell(&mut self, outcome: Outcome) -> Result<()> {
        let Some(answers) = &mut self.answers else { return Ok(()) };
        self.files += outcome.files;
        for (file, fault) in outcome.faults {
            // Of one alone, it is the program's error.
            if self.job.files.len() > 1 {
                self.progress.complain(&format!("skipped: {file}: {}", fault.what()));
            }
            self.faults.push(fault);
        }
        outcome.answers.into_iter().try_for_each(|text| answers.print(text, &mut self.progress))
    }

    /// Tells of what is left, also if that is others' alone.
    fn end(&mut self) -> Result<()> {
        self.settle()?;
        while self.rounds > 0 {
            self.exchange(Outcome::default())?;
        }
        self.answers.as_mut().map_or(Ok(()), |answers| answers.end(&mut self.progress))
    }

    /// Whether nobody reads on, and nobody but this process works on.
    fn is_unread(&self) -> bool {
        self.job.team.is_alone() && self.answers.as_ref().is_some_and(|answers| answers.closed)
    }

    fn verdict(mut self) -> Result<()> {
        let total = self.job.files.len();
        match self.faults.len() {
            0 => Ok(()),
            1 if total == 1 => Err(self.faults.remove(0)),
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
    turn: Turn,
}

/// The batches, for each model, of the pictures that can be read.
pub(super) struct Pictures {
    chunks: Receiver<Chunk>,
    /// How many chunks are still to come.
    left: usize,
    interrupt: Interrupt,
    turns: Rc<RefCell<VecDeque<Turn>>>,
}

/// While a picture is waited for, the user's wish to stop is looked at this often.
const LOOK_UP: Duration = Duration::from_millis(100);

impl Pictures {
    /// Begins to read this rank's share of a job's files in the background, in batches of pictures made as each of `recipes`
    /// says.
    fn read(job: &Job<'_>, recipes: Vec<Preparation>) -> Result<Self> {
        // One batch waits while the next is decoded.
        let (sender, chunks) = sync_channel(1);
        let (rows, files) = (job.batch, job.files.to_vec());
        let own = (job.team.rank()..job.batches()).step_by(job.team.size());
        let left = own.len();
        let work = move || {
            for (number, part) in own.filter_map(|number| Some((number, files.chunks(rows).nth(number)?))) {
                // An error says that nobody listens any more.
                if sender.send(decode(part, number * rows, &recipes, rows)).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("pictures".to_owned()).spawn(work);
        spawned.map_err(|e| Error::new(Kind::OutOfMemory, format!("no thread to decode pictures: {e}")))?;
        Ok(Self { chunks, left, interrupt: Arc::clone(job.interrupt), turns: Rc::default() })
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
    let (mut pictures, mut awaited) = (vec![vec![]; recipes.len()], VecDeque::new());
    let mut outcome = Outcome { files: files.len(), ..Outcome::default() };
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Ok((made, own, areas)) => {
                pictures.iter_mut().zip(made).for_each(|(of_model, picture)| of_model.push(picture));
                awaited.push_back(Loaded { index: first + number, own, areas });
            }
            Err(fault) => outcome.faults.push((files[number].display().to_string(), fault)),
        }
    }
    let batches = pictures.iter().zip(recipes).map(|(p, recipe)| Batch::of_pictures(p, recipe.size, rows)).collect();
    Chunk { batches, turn: Turn { awaited, outcome } }
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
            let empty = chunk.turn.awaited.is_empty();
            self.turns.borrow_mut().push_back(chunk.turn);
            if !empty {
                return Some(Ok(chunk.batches));
            }
        }
        None
    }
}
