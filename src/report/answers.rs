//! What a report says of the answers to test images.

use std::collections::BTreeMap;

use serde_json::Value;

use super::charts::{self, Axes, Line};
use super::page::Section;
use super::run::{MANY, Run, section, shown, svg, table, text, words};
use crate::error::Result;
use crate::metrics::compare::MASK_SCORES;
use crate::metrics::{Answers, DetailedReport, Scored, Sheet, calibration_error, precision_recall_curve, roc_curve};

/// Lines that can be told apart in a chart.
const LINES: usize = 8;

/// What the answers to test images say.
pub(super) fn test_sections(
    run: &Run<'_>,
    sheet: &Sheet,
    groups: &BTreeMap<String, Vec<(&'static str, String)>>,
) -> Result<Vec<Section>> {
    match &sheet.answers {
        Answers::Classes { names, labels, predictions, probabilities } => {
            let pictures: Vec<Scored<'_>> = sheet
                .images
                .iter()
                .zip(&sheet.lesions)
                .zip(labels)
                .map(|((image, lesion), &label)| Scored {
                    label,
                    lesion,
                    groups: groups.get(image).cloned().unwrap_or_default(),
                })
                .collect();
            // The table of answers has the first class of a picture alone: for each class by itself that is not the truth.
            if let Some(each) = run.metrics["test"]["multi_label"].as_object() {
                let mut all = vec![several_classes(names, each)];
                all.extend(confusions(names, labels, predictions)?);
                return Ok(all);
            }
            let detailed = DetailedReport::new(names, &pictures, probabilities, None)?;
            let mut all: Vec<Section> = confusions(names, labels, predictions)?.into_iter().collect();
            all.extend([
                by_class(run, names, &detailed)?,
                curves(names, labels, probabilities)?,
                calibration(run, names, labels, probabilities)?,
            ]);
            all.extend(by_group(&detailed)?);
            Ok(all)
        }
        Answers::Masks(scores) => Ok(vec![masks(sheet, scores)?]),
    }
}

/// Scores of models whose classes do not exclude each other.
fn several_classes(names: &[String], scores: &serde_json::Map<String, Value>) -> Section {
    let of = |name: &str| scores.get(name).and_then(Value::as_f64).map_or("-".to_owned(), shown);
    let rows = ["exact_match", "macro_f1", "macro_auc"].map(|name| vec![words(name), of(name)]);
    let aucs = scores.get("auc").and_then(Value::as_array);
    let auc = |class: usize| aucs.and_then(|all| all.get(class)?.as_f64()).map_or("-".to_owned(), shown);
    let by_class = names.iter().enumerate().map(|(class, name)| vec![name.clone(), auc(class)]);
    let parts = vec![
        text(
            "Each class has a probability of its own, and a picture may have several. Elsewhere on this page a picture counts for \
             the first of its classes.",
        ),
        table("Test images, all their classes", &["score", "test"], rows.to_vec()),
        table("Each class", &["class", "AUC"], by_class.collect()),
    ];
    section("Classes", parts)
}

/// The matrix, unless there are too many classes for one.
fn confusions(names: &[String], labels: &[usize], predictions: &[usize]) -> Result<Option<Section>> {
    if names.len() > MANY {
        return Ok(None);
    }
    let mut counts = vec![vec![0_u64; names.len()]; names.len()];
    labels.iter().zip(predictions).for_each(|(&label, &prediction)| counts[label][prediction] += 1);
    let count = charts::confusion("Confusion matrix, counts", names, &counts, &|n, _| n.to_string())?;
    let share = charts::confusion("Confusion matrix, shares of each class", names, &counts, &|_, s| format!("{s:.2}"))?;
    let row = |(name, row): (&String, &Vec<u64>)| {
        [name.clone()].into_iter().chain(row.iter().map(u64::to_string)).collect::<Vec<_>>()
    };
    let header: Vec<&str> = ["true class"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let rows = names.iter().zip(&counts).map(row).collect();
    let alt = "Counts of test images by true and by predicted class; the table below has the numbers";
    let parts = vec![
        svg("confusion", alt, "Test images by true class and by what was predicted.", count),
        svg(
            "confusion-shares",
            "The same as shares of each true class",
            "The same, as shares of each true class.",
            share,
        ),
        table("Test images: a row per true class, a column per predicted class", &header, rows),
    ];
    Ok(Some(section("Confusion", parts)))
}

fn by_class(run: &Run<'_>, names: &[String], detailed: &DetailedReport) -> Result<Section> {
    let scores: Vec<&Value> = run.metrics["test"]["per_class"].as_array().into_iter().flatten().collect();
    let of = |class: usize, name: &str| scores.get(class).and_then(|s| s[name].as_f64()).unwrap_or(f64::NAN);
    let kinds = ["precision", "recall", "f1"];
    let group = |(class, name): (usize, &String)| (name.clone(), kinds.iter().map(|kind| of(class, kind)).collect());
    let groups: Vec<(String, Vec<f64>)> = names.iter().enumerate().map(group).take(MANY).collect();
    let chart = charts::bars("Scores of each class", "score", &["precision", "recall", "F1"], &groups)?;
    let rows = detailed.classes.iter().enumerate().map(|(class, detail)| {
        let auc = match (detail.auc, detail.auc_interval) {
            (Some(auc), Some([low, high])) => format!("{auc:.3} ({low:.3} to {high:.3})"),
            (Some(auc), None) => format!("{auc:.3}"),
            (None, _) => "-".to_owned(),
        };
        let precision = detail.average_precision.map_or("-".to_owned(), |p| format!("{p:.3}"));
        let largest = kinds.iter().map(|kind| format!("{:.3}", of(class, kind)));
        let fields = [detail.name.clone(), detail.support.to_string()].into_iter().chain(largest);
        fields.chain([format!("{:.3}", detail.specificity), auc, precision]).collect::<Vec<_>>()
    });
    let header =
        ["class", "images", "precision", "recall", "F1", "specificity", "AUC (95 % interval)", "average precision"];
    let caption =
        "Precision, recall and F1 by the largest probability; specificity where that of the class is above one half";
    let parts = vec![
        svg("class-scores", "Precision, recall and F1 of each class", "By the largest probability.", chart),
        table(caption, &header, rows.collect()),
    ];
    Ok(section("Classes", parts))
}

fn curves(names: &[String], labels: &[usize], probabilities: &[f64]) -> Result<Section> {
    let (mut roc, mut recall) = (vec![], vec![]);
    // Of many classes those with most pictures: lines have eight colours.
    let mut classes: Vec<usize> = (0..names.len()).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(labels.iter().filter(|label| *label == class).count()));
    classes.truncate(LINES);
    classes.sort_unstable();
    for (class, name) in classes.into_iter().map(|class| (class, &names[class])) {
        let positive: Vec<bool> = labels.iter().map(|&label| label == class).collect();
        let scores: Vec<f64> = probabilities.iter().skip(class).step_by(names.len()).copied().collect();
        let line = |points: Option<Vec<[f64; 2]>>| points.map(|points| Line { name: name.clone(), points });
        roc.extend(line(roc_curve(&positive, &scores)?));
        recall.extend(line(precision_recall_curve(&positive, &scores)?));
    }
    let axes = |title, x, y| Axes { title, x, y, unit: true, ..Axes::default() };
    let roc_axes = Axes { diagonal: true, ..axes("ROC curves", "false alarms (1 - specificity)", "sensitivity") };
    let parts = vec![
        svg(
            "roc",
            "ROC curve of each class against all others; areas are in the table of classes",
            if names.len() > LINES {
                "The most frequent classes, each against all others, at every threshold of its probability."
            } else {
                "Each class against all others, at every threshold of its probability."
            },
            charts::lines(&roc_axes, &roc)?,
        ),
        svg(
            "precision-recall",
            "Precision and recall of each class at every threshold; average precisions are in the table of classes",
            "What is among those found, and how many are found.",
            charts::lines(&axes("Precision and recall", "recall", "precision"), &recall)?,
        ),
    ];
    Ok(section("Curves", parts))
}

fn calibration(run: &Run<'_>, names: &[String], labels: &[usize], probabilities: &[f64]) -> Result<Section> {
    let (error, bins) = calibration_error(probabilities, names.len(), labels)?;
    let chart = charts::calibration(&bins)?;
    let temperature = match run.metrics["temperature"].as_f64() {
        Some(temperature) => format!(" Probabilities are those at the fitted temperature, {temperature:.4}."),
        None => String::new(),
    };
    let caption = format!(
        "The expected calibration error is {error:.4}. Below the diagonal, the model is surer of itself than it is right.{temperature}"
    );
    let rows = bins.iter().enumerate().filter(|(_, bin)| bin.images > 0).map(|(number, bin)| {
        let ends = [number, number + 1].map(|n| format!("{:.2}", n as f64 / bins.len() as f64));
        vec![ends.join(" to "), bin.images.to_string(), shown(bin.confidence), shown(bin.accuracy)]
    });
    let header = ["largest probability", "images", "its mean", "answered rightly"];
    let alt = "Share answered rightly by the largest probability; the table has the numbers";
    let parts = vec![svg("calibration", alt, caption, chart), table("Calibration", &header, rows.collect())];
    Ok(section("Calibration", parts))
}

/// Scores of groups of patients, where they are known.
fn by_group(detailed: &DetailedReport) -> Result<Option<Section>> {
    if detailed.groups.is_empty() {
        return Ok(None);
    }
    let rows = detailed.groups.iter().map(|group| {
        let name = format!("{}: {}", group.by, group.name);
        vec![name, group.images.to_string(), shown(group.accuracy), shown(group.balanced_accuracy)]
    });
    let caption = "Test images by what is known of the patient. Of few images, scores say little; classes are not equally frequent \
                   in all groups";
    let parts = vec![table(caption, &["group", "images", "accuracy", "balanced accuracy"], rows.collect())];
    Ok(Some(section("Groups", parts)))
}

/// The scores of masks: how many images reach how much.
fn masks(sheet: &Sheet, scores: &[[f64; MASK_SCORES.len()]]) -> Result<Section> {
    const BINS: usize = 20;
    let mut counts = [0.0; BINS];
    scores.iter().for_each(|s| counts[((s[1] * BINS as f64) as usize).min(BINS - 1)] += 1.0);
    let name =
        |bin: usize| if bin.is_multiple_of(2) { format!("{:.1}", bin as f64 / BINS as f64) } else { String::new() };
    let groups: Vec<(String, Vec<f64>)> = counts.iter().enumerate().map(|(bin, &n)| (name(bin), vec![n])).collect();
    let chart = charts::bars("Jaccard index of the test images", "images", &["images"], &groups)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a][1].total_cmp(&scores[b][1]));
    let rows = order.iter().take(12).map(|&i| {
        [sheet.images[i].clone()].into_iter().chain(scores[i].iter().map(|&v| format!("{v:.3}"))).collect::<Vec<_>>()
    });
    let names = MASK_SCORES.map(words);
    let header: Vec<&str> = ["image"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let parts = vec![
        svg("jaccard", "How many test images have which Jaccard index", "Each bar spans 0.05.", chart),
        table("The test images with the smallest overlap", &header, rows.collect()),
    ];
    Ok(section("Masks", parts))
}
