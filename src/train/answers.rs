//! A run's answers to its test images, `test.csv`: what runs are compared by.
//!
//! Of classes the columns are `image_id,lesion,label,prediction` and the probability `p:NAME` of each class; of masks
//! `image_id,lesion` and the scores of each mask. Where the split leaks, a last column says so in each row.

use std::path::Path;

use crate::data::csv_of_split;
use crate::error::{Error, Kind, Result};
use crate::metrics::compare::MASK_SCORES;
use crate::metrics::{Answers, PixelCounts, Sheet, argmax};

/// How the columns of probabilities begin.
const PROBABILITY: &str = "p:";

/// Whose answer a row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub image: &'a str,
    pub lesion: &'a str,
}

/// What a model answered to pictures.
#[derive(Debug, Clone)]
pub enum Given {
    /// Probabilities `[N, K]` of classes.
    Probabilities(Vec<f64>),
    /// The pixels of masks.
    Masks(Vec<PixelCounts>),
}

/// The table of a classifier's answers, to images of a split that may be `leaky`: labels, and probabilities `[N, K]`.
///
/// # Errors
/// [`Kind::Internal`] if it cannot be encoded.
pub(super) fn class_table(
    leaky: bool,
    classes: &[String],
    asked: &[Asked<'_>],
    labels: &[usize],
    probabilities: &[f64],
) -> Result<Vec<u8>> {
    let columns = ["image_id", "lesion", "label", "prediction"].map(str::to_owned);
    let header = columns.into_iter().chain(classes.iter().map(|class| format!("{PROBABILITY}{class}")));
    let rows = asked.iter().zip(labels).zip(probabilities.chunks_exact(classes.len())).map(|((asked, &label), row)| {
        let (label, prediction) = (&classes[label], &classes[argmax(row)]);
        let row = row.iter().map(|p| format!("{p:.6}"));
        [asked.image, asked.lesion, label, prediction].map(str::to_owned).into_iter().chain(row)
    });
    csv_of_split(leaky, header, rows)
}

/// The table of masks, of images of a split that may be `leaky`.
///
/// # Errors
/// [`Kind::Internal`] if it cannot be encoded.
pub(super) fn mask_table(leaky: bool, asked: &[Asked<'_>], counts: &[PixelCounts]) -> Result<Vec<u8>> {
    let header = ["image_id", "lesion"].into_iter().chain(MASK_SCORES).map(str::to_owned);
    let rows = asked.iter().zip(counts).map(|(asked, counts)| {
        let scores = mask_scores(*counts).map(|score| format!("{score:.6}"));
        [asked.image, asked.lesion].map(str::to_owned).into_iter().chain(scores)
    });
    csv_of_split(leaky, header, rows)
}

/// The scores of a mask, in the order of [`MASK_SCORES`].
pub(super) fn mask_scores(counts: PixelCounts) -> [f64; MASK_SCORES.len()] {
    [
        counts.dice(),
        counts.jaccard(),
        counts.threshold_jaccard(),
        counts.sensitivity(),
        counts.specificity(),
        counts.accuracy(),
    ]
}

/// Reads such a table.
///
/// # Errors
/// [`Kind::Io`], and [`Kind::Data`] naming the row if it is none.
pub fn read_answers(path: &Path) -> Result<Sheet> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read the answers of a run", path, &e))?;
    let bad = |what: String| {
        Error::new(Kind::Data, what)
            .at(path.display())
            .next("it is what `lesion-gpu train` wrote into the run's folder")
    };
    let mut csv = csv::Reader::from_reader(bytes.as_slice());
    let header = csv.headers().map_err(|e| bad(format!("this is no table of answers: {e}")))?.clone();
    let names: Vec<String> = header.iter().filter_map(|h| h.strip_prefix(PROBABILITY)).map(str::to_owned).collect();
    let masks = names.is_empty();
    let column = |name: &str| {
        header.iter().position(|h| h == name).ok_or_else(|| bad(format!("the table has no column {name}")))
    };
    let (image, lesion) = (column("image_id")?, column("lesion")?);
    let answers = if masks { vec![] } else { vec![column("label")?, column("prediction")?] };
    let scores = if masks { MASK_SCORES.map(column).into_iter().collect::<Result<Vec<_>>>()? } else { vec![] };
    let shares = names.iter().map(|name| column(&format!("{PROBABILITY}{name}"))).collect::<Result<Vec<_>>>()?;
    let (mut images, mut lesions, mut classes, mut found) = (vec![], vec![], [vec![], vec![]], vec![]);
    let mut probabilities = vec![];
    for (number, record) in csv.records().enumerate() {
        let line = number + 2;
        let record = record.map_err(|e| bad(format!("line {line}: {e}")))?;
        let field = |at: usize| record.get(at).unwrap_or_default();
        images.push(field(image).to_owned());
        lesions.push(field(lesion).to_owned());
        for (list, &at) in classes.iter_mut().zip(&answers) {
            let class = names.iter().position(|name| name == field(at));
            list.push(class.ok_or_else(|| bad(format!("line {line}: there is no class '{}'", field(at))))?);
        }
        let number = |at: usize| {
            let parsed = field(at).parse::<f64>().ok().filter(|number| number.is_finite());
            parsed.ok_or_else(|| bad(format!("line {line}: '{}' is no score", field(at))))
        };
        for &at in &shares {
            probabilities.push(number(at)?);
        }
        if masks {
            let mut row = [0.0; MASK_SCORES.len()];
            for (score, &at) in row.iter_mut().zip(&scores) {
                *score = number(at)?;
            }
            found.push(row);
        }
    }
    if images.is_empty() {
        return Err(bad("the table is empty".into()));
    }
    let [labels, predictions] = classes;
    let answers = match masks {
        true => Answers::Masks(found),
        false => Answers::Classes { names, labels, predictions, probabilities },
    };
    Ok(Sheet { images, lesions, answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_they_were_written() {
        let asked = [Asked { image: "a, b", lesion: "1" }, Asked { image: "c", lesion: "2" }];
        let classes = ["nv".to_owned(), "mel".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.csv");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_answers(&path)
        };
        let table = class_table(false, &classes, &asked, &[1, 0], &[0.25, 0.75, 0.125, 0.875]).unwrap();
        assert!(String::from_utf8_lossy(&table).contains("\"a, b\",1,mel,mel,0.250000,0.750000"));
        let sheet = read(&table).unwrap();
        assert_eq!(
            (sheet.images, sheet.lesions),
            (vec!["a, b".to_owned(), "c".into()], vec!["1".to_owned(), "2".into()])
        );
        let answers = Answers::Classes {
            names: classes.to_vec(),
            labels: vec![1, 0],
            predictions: vec![1, 1],
            probabilities: vec![0.25, 0.75, 0.125, 0.875],
        };
        assert_eq!(sheet.answers, answers);
        let leaky = class_table(true, &classes, &asked, &[1, 0], &[0.25, 0.75, 0.125, 0.875]).unwrap();
        assert_eq!(String::from_utf8_lossy(&leaky).matches(",LEAKY\n").count(), 2);
        assert_eq!(read(&leaky).unwrap().answers, answers);
        let counts = PixelCounts::of([(true, true), (true, false), (false, false), (false, false)]);
        let sheet = read(&mask_table(false, &asked, &[counts, counts]).unwrap()).unwrap();
        let Answers::Masks(masks) = sheet.answers else { panic!("not masks") };
        assert_eq!((masks.len(), masks[1][1], masks[0][5]), (2, 0.5, 0.75));
        for wrong in ["", "image_id,lesion\n", "image_id,lesion,label,prediction,p:a\nx,1,a,b\n", "a,b\n1,2\n"] {
            assert_eq!(read(wrong.as_bytes()).unwrap_err().kind(), Kind::Data, "{wrong}");
        }
    }
}
