//! Classification metrics against scikit-learn's, and those of masks against the scorer of ISIC 2018, stored by `tests/goldens/make_metrics.py`.

use std::path::PathBuf;

use lesion_gpu::Kind;
use lesion_gpu::metrics::{
    ClassificationReport, ConfusionMatrix, DetailedReport, PixelCounts, Scored, SegmentationReport,
};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
    masks: Masks,
}

/// Masks, and what the scorer of ISIC 2018 Task 1 says.
#[derive(Deserialize)]
struct Masks {
    pictures: Vec<Mask>,
    mean: MaskScores,
}

#[derive(Deserialize)]
struct Mask {
    drawn: Vec<u8>,
    found: Vec<u8>,
    scores: MaskScores,
}

#[derive(Deserialize)]
struct MaskScores {
    accuracy: f64,
    sensitivity: f64,
    specificity: f64,
    jaccard: f64,
    threshold_jaccard: f64,
    dice: f64,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    classes: usize,
    labels: Vec<usize>,
    scores: Vec<f32>,
    accuracy: f64,
    balanced_accuracy: f64,
    macro_f1: f64,
    weighted_f1: f64,
    macro_auc: Option<f64>,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    auc: Vec<Option<f64>>,
    support: Vec<u64>,
    confusion: ConfusionMatrix,
    isic: Isic,
    calibration_error: f64,
    sensitivity_at_90: Vec<Option<f64>>,
}

/// What the challenges' scorer says.
#[derive(Deserialize)]
struct Isic {
    balanced_accuracy: f64,
    classes: Vec<IsicClass>,
}

#[derive(Deserialize)]
struct IsicClass {
    accuracy: f64,
    sensitivity: f64,
    specificity: f64,
    dice: f64,
    ppv: f64,
    npv: f64,
    auc: Option<f64>,
    auc80: Option<f64>,
    ap: Option<f64>,
}

fn goldens() -> Goldens {
    let folder = std::env::var_os("LESION_GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"), PathBuf::from);
    let path = folder.join("metrics.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn close(case: &str, what: &str, ours: Option<f64>, theirs: Option<f64>) {
    match (ours, theirs) {
        (Some(a), Some(b)) => assert!((a - b).abs() <= TOLERANCE, "{case}: {what}: {a} instead of {b}"),
        (a, b) => assert_eq!(a, b, "{case}: {what}"),
    }
}

#[test]
fn equals_scikit_learn() {
    let goldens = goldens();
    assert!(goldens.cases.len() >= 7);
    for case in goldens.cases {
        let names: Vec<String> = (0..case.classes).map(|k| format!("class {k}")).collect();
        let report = ClassificationReport::new(&names, &case.labels, &case.scores).unwrap();
        let check = |what: &str, ours: Option<f64>, theirs: Option<f64>| close(&case.name, what, ours, theirs);
        assert_eq!(report.samples, case.labels.len() as u64, "{}", case.name);
        assert_eq!(report.confusion, case.confusion, "{}", case.name);
        check("accuracy", Some(report.accuracy), Some(case.accuracy));
        check("balanced accuracy", Some(report.balanced_accuracy), Some(case.balanced_accuracy));
        check("macro F1", Some(report.macro_f1), Some(case.macro_f1));
        check("weighted F1", Some(report.weighted_f1), Some(case.weighted_f1));
        check("macro AUC", report.macro_auc, case.macro_auc);
        assert_eq!(report.per_class.len(), case.classes);
        for (k, class) in report.per_class.iter().enumerate() {
            assert_eq!(class.support, case.support[k], "{}", case.name);
            check("precision", Some(class.precision), Some(case.precision[k]));
            check("recall", Some(class.recall), Some(case.recall[k]));
            check("F1", Some(class.f1), Some(case.f1[k]));
            check("AUC", class.auc, case.auc[k]);
        }
    }
}

fn detailed(case: &Case, lesions: &[String], operating: Option<(usize, f64)>) -> DetailedReport {
    let names: Vec<String> = (0..case.classes).map(|k| format!("class {k}")).collect();
    let group = |i: usize| vec![("sex", ["female", "male"][i % 2].to_owned())];
    let pictures: Vec<Scored<'_>> = (case.labels.iter().zip(lesions).enumerate())
        .map(|(i, (&label, lesion))| Scored { label, lesion, groups: group(i) })
        .collect();
    let scores: Vec<f64> = case.scores.iter().map(|&s| f64::from(s)).collect();
    DetailedReport::new(&names, &pictures, &scores, operating).unwrap()
}

fn each_alone(case: &Case) -> Vec<String> {
    (0..case.labels.len()).map(|i| i.to_string()).collect()
}

#[test]
fn equals_the_scorer_of_the_challenges() {
    for case in goldens().cases {
        let check = |what: &str, ours: Option<f64>, theirs: Option<f64>| close(&case.name, what, ours, theirs);
        for class in 0..case.classes {
            let report = detailed(&case, &each_alone(&case), Some((class, 0.9)));
            check("balanced accuracy", Some(report.balanced_accuracy), Some(case.isic.balanced_accuracy));
            check("calibration error", Some(report.calibration_error), Some(case.calibration_error));
            let (ours, theirs) = (&report.classes[class], &case.isic.classes[class]);
            check("accuracy", Some(ours.accuracy), Some(theirs.accuracy));
            check("sensitivity", Some(ours.sensitivity), Some(theirs.sensitivity));
            check("specificity", Some(ours.specificity), Some(theirs.specificity));
            check("Dice", Some(ours.dice), Some(theirs.dice));
            check("PPV", Some(ours.ppv), Some(theirs.ppv));
            check("NPV", Some(ours.npv), Some(theirs.npv));
            check("AUC", ours.auc, theirs.auc);
            check("AUC above 0.80", ours.auc_above_sensitivity_80, theirs.auc80);
            check("average precision", ours.average_precision, theirs.ap);
            let point = report.operating_point.map(|point| point.sensitivity);
            check("sensitivity at 0.90", point, case.sensitivity_at_90[class]);
        }
    }
}

#[test]
fn masks_equal_the_scorer_of_the_challenge() {
    let Masks { pictures, mean } = goldens().masks;
    assert!(pictures.len() >= 12);
    let compare = |name: &str, ours: &SegmentationReport, theirs: &MaskScores| {
        let pairs = [
            ("accuracy", ours.accuracy, theirs.accuracy),
            ("sensitivity", ours.sensitivity, theirs.sensitivity),
            ("specificity", ours.specificity, theirs.specificity),
            ("Jaccard", ours.jaccard, theirs.jaccard),
            ("threshold Jaccard", ours.threshold_jaccard, theirs.threshold_jaccard),
            ("Dice", ours.dice, theirs.dice),
        ];
        pairs.into_iter().for_each(|(what, ours, theirs)| close(name, what, Some(ours), Some(theirs)));
    };
    // Inside is what is brighter than 128.
    let inside = |values: &[u8]| values.iter().map(|&v| v > 128).collect::<Vec<bool>>();
    let counts: Vec<PixelCounts> =
        pictures.iter().map(|m| PixelCounts::of(inside(&m.found).into_iter().zip(inside(&m.drawn)))).collect();
    for (i, (picture, counts)) in pictures.iter().zip(&counts).enumerate() {
        compare(&format!("mask {i}"), &SegmentationReport::new(&[*counts]).unwrap(), &picture.scores);
    }
    compare("mean", &SegmentationReport::new(&counts).unwrap(), &mean);
}

/// Intervals hold the value, are repeatable, and get wider where pictures are no independent observations.
#[test]
fn bootstrap_intervals_draw_lesions() {
    let goldens = goldens();
    let case = goldens.cases.iter().find(|case| case.name == "imbalanced").unwrap();
    let alone = detailed(case, &each_alone(case), None);
    assert_eq!(alone, detailed(case, &each_alone(case), None));
    let width = |[low, high]: [f64; 2]| {
        assert!(low < high);
        high - low
    };
    let [low, high] = alone.accuracy_interval;
    assert!(low < case.accuracy && case.accuracy < high);
    // The normal approximation for 200 pictures.
    let normal = 2.0 * 1.96 * (case.accuracy * (1.0 - case.accuracy) / case.labels.len() as f64).sqrt();
    assert!((width(alone.accuracy_interval) / normal - 1.0).abs() < 0.15, "{:?} {normal}", alone.accuracy_interval);
    for class in alone.classes.iter().filter(|class| class.support > 0) {
        let ([low, high], auc) = (class.auc_interval.unwrap(), class.auc.unwrap());
        assert!(low <= auc && auc <= high, "{}: {auc} in {low} to {high}", class.name);
    }
    // Twenty lesions of ten pictures, each all right or all wrong.
    let right = |i: usize| argmax_of(case, i) == case.labels[i];
    let mut order: Vec<usize> = (0..case.labels.len()).collect();
    order.sort_by_key(|&i| right(i));
    let mut lesions = vec![String::new(); order.len()];
    order.iter().enumerate().for_each(|(at, &i)| lesions[i] = (at / 10).to_string());
    let together = detailed(case, &lesions, None);
    assert!(width(together.accuracy_interval) > 2.0 * width(alone.accuracy_interval));
    assert_eq!(together.groups.iter().map(|g| (g.by.as_str(), g.images)).collect::<Vec<_>>(), [("sex", 100); 2]);
}

fn argmax_of(case: &Case, picture: usize) -> usize {
    lesion_gpu::metrics::argmax(&case.scores[picture * case.classes..][..case.classes])
}

#[test]
fn detailed_scores_of_nonsense_are_refused() {
    let names = ["a".to_owned(), "b".to_owned()];
    let picture = |label| Scored { label, lesion: "x", groups: vec![] };
    let kind = |pictures: &[Scored<'_>], scores: &[f64], operating| {
        DetailedReport::new(&names, pictures, scores, operating).unwrap_err().kind()
    };
    assert_eq!(kind(&[], &[], None), Kind::Shape);
    assert_eq!(kind(&[picture(0)], &[0.1], None), Kind::Shape);
    assert_eq!(kind(&[picture(2)], &[0.1, 0.9], None), Kind::Shape);
    assert_eq!(kind(&[picture(0)], &[0.1, 0.9], Some((2, 0.9))), Kind::Shape);
    assert_eq!(kind(&[picture(0)], &[0.1, f64::NAN], None), Kind::Diverged);
}

#[test]
fn a_report_survives_json() {
    for case in goldens().cases {
        let names: Vec<String> = (0..case.classes).map(|k| format!("class {k}")).collect();
        let report = ClassificationReport::new(&names, &case.labels, &case.scores).unwrap();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ClassificationReport>(&text).unwrap(), report);
    }
}
