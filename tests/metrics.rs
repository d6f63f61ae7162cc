//! Classification metrics against scikit-learn's, stored by `tests/goldens/make_metrics.py`.

use std::path::PathBuf;

use lesion_gpu::metrics::{ClassificationReport, ConfusionMatrix};
use serde::Deserialize;

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
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

#[test]
fn a_report_survives_json() {
    for case in goldens().cases {
        let names: Vec<String> = (0..case.classes).map(|k| format!("class {k}")).collect();
        let report = ClassificationReport::new(&names, &case.labels, &case.scores).unwrap();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ClassificationReport>(&text).unwrap(), report);
    }
}
