//! Several models that answer together: each sees every picture as it was trained to, and their probabilities are averaged.

use super::predictor::{Predictor, Said};
use super::{Outputs, RunFolder};
use crate::data::preprocess::Area;
use crate::data::{Batch, ImageSize, Preparation, Sample, SampleReader, resize_probabilities};
use crate::error::{Error, Kind, Result};
use crate::gpu::Gpu;
use crate::metrics::PixelCounts;
use crate::models::Task;

/// One model or more, for the same task and classes.
pub struct Ensemble {
    members: Vec<Predictor>,
}

/// What is to be the same in models that answer together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answering {
    /// The task.
    pub task: Task,
    /// The classes, in order.
    pub classes: Vec<String>,
    /// What makes probabilities.
    pub outputs: Outputs,
}

impl Answering {
    /// Checks that another model, called `name`, answers alike.
    ///
    /// # Errors
    /// [`Kind::Usage`] if not.
    pub fn check(&self, other: &Self, name: &str) -> Result<()> {
        let refuse = |what: String, next: &str| Err(Error::new(Kind::Usage, what).at(name).next(next));
        if other.task != self.task {
            return refuse("some runs classify, and others segment".to_owned(), "use runs together that do the same");
        }
        if other.classes != self.classes {
            let (one, other) = (self.classes.join(","), other.classes.join(","));
            return refuse(
                format!("the runs have different classes: {one}, and {other}"),
                "use runs together that were trained for the same classes",
            );
        }
        if other.outputs != self.outputs {
            return refuse(
                "some runs have a softmax over the classes, others a sigmoid for each".to_owned(),
                "use runs together whose --loss is of one kind",
            );
        }
        Ok(())
    }
}

impl Ensemble {
    /// Of models with their names.
    ///
    /// # Errors
    /// [`Kind::Usage`] if they do not answer alike, [`Kind::Internal`] if there are none.
    pub fn new(members: Vec<(String, Predictor)>) -> Result<Self> {
        let (first, others) = members.split_first().ok_or_else(none)?;
        let answering = first.1.answering();
        others.iter().try_for_each(|(name, member)| answering.check(&member.answering(), name))?;
        Ok(Self { members: members.into_iter().map(|(_, member)| member).collect() })
    }

    /// The models.
    pub fn members(&self) -> &[Predictor] {
        &self.members
    }

    /// In how many views each of them sees a picture, where it is several, and as many for all.
    pub fn views(&self) -> Option<usize> {
        let mut views = self.members.iter().map(Predictor::views);
        views.next().filter(|&first| first > 1 && views.all(|other| other == first))
    }

    /// How pictures are made for each of them.
    pub fn preparations(&self) -> Vec<Preparation> {
        self.members.iter().map(|member| member.config.preparation()).collect()
    }

    /// Calls `take` with the number of each valid picture, in order, and what each model says of it. Each item of `batches`
    /// has the same pictures for all models, in their order. `progress` is called with the batches done.
    ///
    /// # Errors
    /// As [`Predictor::each_picture`].
    pub fn each_picture(
        &mut self,
        gpu: &Gpu,
        batches: impl IntoIterator<Item = Result<Vec<Batch>>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
        take: &mut dyn FnMut(usize, &[Said]) -> Result<()>,
    ) -> Result<()> {
        // A single model works on one batch while the next is uploaded.
        if let [only] = self.members.as_mut_slice() {
            let batches = batches.into_iter().map(|batches| batches?.pop().ok_or_else(none));
            return only
                .each_picture(gpu, batches, progress, &mut |picture, said| take(picture, std::slice::from_ref(said)));
        }
        let mut before = 0;
        for (done, batches) in batches.into_iter().enumerate() {
            let mut said: Vec<Vec<Said>> = Vec::new();
            for (member, batch) in self.members.iter_mut().zip(batches?) {
                let mut gather = |picture: usize, new: &Said| {
                    if said.len() <= picture {
                        said.push(vec![]);
                    }
                    said[picture].push(new.clone());
                    Ok(())
                };
                member.each_picture(gpu, [Ok(batch)], &mut |_| Ok(()), &mut gather)?;
            }
            for of_picture in said {
                take(before, &of_picture)?;
                before += 1;
            }
            progress(done + 1)?;
        }
        Ok(())
    }

    /// Compares the masks of `samples` with those that were drawn, at the size these were drawn in: what all models mark
    /// together, and what each marks. Batches as for [`each_picture`](Self::each_picture).
    ///
    /// # Errors
    /// As [`Predictor::each_picture`]; [`Kind::Data`] for a mask that cannot be read any more.
    pub fn mask_counts(
        &mut self,
        gpu: &Gpu,
        samples: &[&Sample],
        batches: impl IntoIterator<Item = Result<Vec<Batch>>>,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<MaskCounts> {
        let (mut reader, recipes) = (SampleReader::default(), self.preparations());
        let mut counts = MaskCounts { together: vec![], each: vec![vec![]; recipes.len()] };
        self.each_picture(gpu, batches, progress, &mut |picture, said| {
            let (mut areas, mut drawn) = (vec![], None);
            for recipe in &recipes {
                let (mask, area) = reader.mask_and_area(samples[picture], recipe)?;
                areas.push(area);
                drawn = Some(mask);
            }
            let (maps, drawn) = (mask_maps(said, &recipes, &areas), drawn.ok_or_else(none)?);
            let own = ImageSize::from(&drawn);
            let compare = |found: Vec<bool>| PixelCounts::of(found.into_iter().zip(drawn.pixels().map(|p| p[0] > 0)));
            let together = compare(mask_of(&maps, own)?);
            counts.together.push(together);
            for (map, list) in maps.iter().zip(&mut counts.each) {
                list.push(if maps.len() == 1 { together } else { compare(mask_of(std::slice::from_ref(map), own)?) });
            }
            Ok(())
        })?;
        Ok(counts)
    }
}

/// How masks compare with those that were drawn, picture by picture.
#[derive(Debug, Clone)]
pub struct MaskCounts {
    /// Of all models together.
    pub together: Vec<PixelCounts>,
    /// Of each model by itself.
    pub each: Vec<Vec<PixelCounts>>,
}

/// What a model that segments says of a picture.
#[derive(Debug, Clone, Copy)]
pub struct MaskMap<'a> {
    /// The probabilities of the pixels, row by row.
    pub said: &'a Said,
    /// Their size.
    pub size: ImageSize,
}

/// What each of several models says of a picture, with the area that each saw; `recipes` are how they see pictures.
pub fn mask_maps<'a>(said: &'a [Said], recipes: &[Preparation], areas: &[Area]) -> Vec<(MaskMap<'a>, Area)> {
    let maps = said.iter().zip(recipes).map(|(said, recipe)| MaskMap { said, size: recipe.size });
    maps.zip(areas.iter().copied()).collect()
}

/// The mask of a picture, row by row, by what models say that saw an area of it each: their probabilities are brought to their
/// areas' sizes, what they did not see is outside, and where the mean is above one half is inside.
///
/// # Errors
/// [`Kind::Diverged`] if logits are not numbers.
pub fn mask_of(maps: &[(MaskMap<'_>, Area)], picture: ImageSize) -> Result<Vec<bool>> {
    let mut sums = vec![0.0_f32; picture.area()];
    for (MaskMap { said, size }, area) in maps {
        said.check()?;
        let probabilities: Vec<f32> = said.probabilities.iter().map(|&p| p as f32).collect();
        let probabilities = resize_probabilities(&probabilities, *size, area.size)?;
        let rows = sums.chunks_exact_mut(picture.width).skip(area.y).zip(probabilities.chunks_exact(area.size.width));
        for (row, probabilities) in rows {
            row[area.x..].iter_mut().zip(probabilities).for_each(|(sum, &p)| *sum += p);
        }
    }
    let half = 0.5 * maps.len() as f32;
    Ok(sums.into_iter().map(|sum| sum > half).collect())
}

/// Whether `path` is a run or a checkpoint, and not a picture or a folder of them.
pub fn is_model(path: &std::path::Path) -> bool {
    RunFolder::open(path).is_ok() || path.extension().is_some_and(|ending| ending == "safetensors")
}

fn none() -> Error {
    Error::new(Kind::Internal, "there is no model to ask")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: usize, height: usize) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn a_mask_lies_where_the_picture_was_seen() {
        let drawn = Said::of(vec![], vec![0.9, 0.1, 0.1, 0.9]);
        let map = MaskMap { said: &drawn, size: size(2, 2) };
        let whole = |own| (map, Area::whole(own));
        assert_eq!(mask_of(&[whole(size(2, 2))], size(2, 2)).unwrap(), [true, false, false, true]);
        let part = (map, Area { x: 2, y: 1, size: size(2, 2) });
        let mask = mask_of(&[part], size(5, 4)).unwrap();
        let inside: Vec<usize> = (0..20).filter(|&at| mask[at]).collect();
        assert_eq!(inside, [5 + 2, 10 + 3]);
        let broken = Said::of(vec![f32::NAN], vec![f64::NAN; 4]);
        let broken = MaskMap { said: &broken, size: size(2, 2) };
        assert!(mask_of(&[(broken, Area::whole(size(2, 2)))], size(2, 2)).is_err());
    }

    #[test]
    fn masks_of_several_are_those_of_their_mean() {
        let (one, other) = (Said::of(vec![], vec![0.9, 0.6, 0.4, 0.0]), Said::of(vec![], vec![0.3, 0.3, 0.9, 0.0]));
        let own = size(2, 2);
        let map = |said| (MaskMap { said, size: own }, Area::whole(own));
        assert_eq!(mask_of(&[map(&one), map(&other)], own).unwrap(), [true, false, true, false]);
        // What one of them did not see counts as outside for it.
        let (all, most) = (Said::of(vec![], vec![0.9; 4]), Said::of(vec![], vec![0.2, 0.2, 0.9, 0.9]));
        let upper = (MaskMap { said: &all, size: own }, Area { x: 0, y: 0, size: size(2, 1) });
        assert_eq!(mask_of(&[upper, map(&most)], own).unwrap(), [true, true, false, false]);
    }
}
