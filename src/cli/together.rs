//! Which images several runs are scored on together: the same for all, or for the folds of a cross-validation each its own.

use std::collections::{HashMap, HashSet};

use super::eval::{EvalArgs, Part};
use super::member::Member;
use crate::data::Sample;
use crate::error::{Error, Kind, Result};

/// The images, as far as runs have joined.
pub(super) struct Images {
    part: Part,
    out_of_fold: bool,
    /// Images of the whole dataset.
    all: usize,
    samples: Vec<Sample>,
    trained_on: HashSet<String>,
    runs: usize,
}

impl Images {
    /// Before any run has joined.
    pub fn new(args: &EvalArgs) -> Self {
        let (part, out_of_fold) = (args.split, args.out_of_fold);
        Self { part, out_of_fold, all: 0, samples: vec![], trained_on: HashSet::new(), runs: 0 }
    }

    /// The images.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Takes a run's part of its data, and the numbers in its data of the images that it is to answer to, in the order of
    /// the answers.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the images do not go together, [`Kind::Data`] if their classes do not, and those of
    /// [`RunFolder::trained_on`](crate::train::RunFolder::trained_on).
    pub fn join(&mut self, member: &Member) -> Result<Vec<usize>> {
        let indices = member.indices(self.part);
        self.runs += 1;
        let samples = || indices.iter().map(|&i| &member.dataset.samples[i]);
        let places = match (self.runs, self.out_of_fold) {
            (1, _) => {
                self.all = member.dataset.samples.len();
                self.samples = samples().cloned().collect();
                (0..indices.len()).collect()
            }
            (_, true) => {
                self.check_fold(member, samples())?;
                self.samples.extend(samples().cloned());
                (0..indices.len()).collect()
            }
            (_, false) => self.places(member, &samples().collect::<Vec<_>>())?,
        };
        // In a cross-validation each run answers to what it was not trained on, and only to that.
        if let (Some(run), false) = (&member.run, self.out_of_fold) {
            self.trained_on.extend(run.trained_on()?);
        }
        Ok(places.into_iter().map(|place: usize| indices[place]).collect())
    }

    /// Where each image lies among those of another run, which are to be the same.
    fn places(&self, member: &Member, samples: &[&Sample]) -> Result<Vec<usize>> {
        let at: HashMap<&str, usize> = samples.iter().enumerate().map(|(i, sample)| (sample.id.as_str(), i)).collect();
        let places: Vec<usize> = self.samples.iter().filter_map(|sample| at.get(sample.id.as_str()).copied()).collect();
        if places.len() != self.samples.len() || places.len() != samples.len() {
            let what = format!(
                "the runs do not have the same images in their {} split: {} of {} are among the {} of this one",
                self.part.name(),
                places.len(),
                self.samples.len(),
                samples.len()
            );
            let folds = "for the folds of a cross-validation use --out-of-fold; else score images that no run was trained \
                         on, with --data and --split all";
            return Err(Error::new(Kind::Usage, what).at(&member.name).next(folds));
        }
        let differ = self.samples.iter().zip(&places).filter(|(sample, i)| sample.label != samples[**i].label);
        match differ.count() {
            0 => Ok(places),
            count => {
                let what = format!("the runs' data disagree about the class of {count} images");
                Err(Error::new(Kind::Data, what).at(&member.name).next("score them on one dataset, with --data"))
            }
        }
    }

    /// Checks that the images of another fold are others.
    fn check_fold<'a>(&self, member: &Member, mut samples: impl Iterator<Item = &'a Sample>) -> Result<()> {
        let seen: HashSet<&str> = self.samples.iter().map(|sample| sample.id.as_str()).collect();
        let twice = samples.by_ref().filter(|sample| seen.contains(sample.id.as_str())).count();
        if twice > 0 {
            let what = format!("{twice} images are in the test split of more than one run");
            return Err(Error::new(Kind::Usage, what).at(&member.name).next(
                "--out-of-fold is for the folds of one cross-validation (train --fold 1/5 and so on, with the same seed)",
            ));
        }
        let images = member.dataset.samples.len();
        if images != self.all {
            let what = format!("the runs' data differ: {images} images, and {}", self.all);
            return Err(Error::new(Kind::Usage, what).at(&member.name));
        }
        Ok(())
    }

    /// Refuses what would flatter the models; how many images some were trained on, where that was asked for.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn check(&self) -> Result<Option<usize>> {
        let (all, scored) = (self.all, self.samples.len());
        if self.out_of_fold && scored != all {
            let what = format!("{} of {all} images are in no run's test split", all - scored);
            return Err(Error::new(Kind::Usage, what).next("name the runs of all folds"));
        }
        let known = self.samples.iter().filter(|sample| self.trained_on.contains(&sample.id)).count();
        match self.part {
            _ if known == 0 || self.out_of_fold => Ok(None),
            Part::Train | Part::All => Ok(Some(known)),
            Part::Val | Part::Test => {
                let what = format!("{known} of {scored} images were trained on: such scores say nothing of new images");
                Err(Error::new(Kind::Usage, what)
                    .next("score other images, or --split all, which says how many were trained on"))
            }
        }
    }

    /// What is scored, in words, where the `first` run says so of its own part.
    pub fn head(&self, first: String, leak: Option<&String>) -> String {
        match self.out_of_fold {
            true => {
                let leak = leak.map_or(String::new(), |leak| format!("{leak}\n"));
                format!("{leak}{} images, each by the run that had it in its test split", self.samples.len())
            }
            false => first,
        }
    }

    /// A line on images that were trained on, where all were asked for.
    pub fn note(&self, trained_on: Option<usize>) -> Option<String> {
        let known = trained_on.filter(|_| self.part == Part::All)?;
        Some(format!("note     {known} of {} images were trained on: these scores flatter", self.samples.len()))
    }

    /// A table of the runs and what they are together: a name, the count of images and two scores, called `columns`, each.
    pub fn table(&self, columns: [&str; 2], runs: &[(&str, usize, [f64; 2])], together: [f64; 2]) -> String {
        let all = if self.out_of_fold { "out of fold".to_owned() } else { format!("mean of {}", runs.len()) };
        let last = (all.as_str(), self.samples.len(), together);
        let rows = || runs.iter().chain([&last]);
        let width = rows().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let [a, b] = columns;
        let mut text = format!("{:width$}  images  {a:>8}  {b:>8}\n", "run");
        for (name, images, [a, b]) in rows() {
            text += &format!("{name:width$}  {images:>6}  {a:>8.4}  {b:>8.4}\n");
        }
        text
    }
}
