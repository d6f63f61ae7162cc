#!/usr/bin/env python3
"""Makes metrics.json: small classification problems with scikit-learn's scores, and small masks with those of ISIC 2018.

    pip install numpy scikit-learn isic-challenge-scoring
    python make_metrics.py [--seed 1] [--out DIR]

Macro scores are over all K classes, with 0 where a ratio is 0/0; the AUC of a class is against the rest, null where
the class has no positives or no negatives; macro_auc is the plain mean of those that are defined. `isic` is what the
official scorer of the ISIC challenges says, `calibration_error` has 15 bins, and `sensitivity_at_90` is each class's at a
specificity of at least 0.90. `masks` are 8-bit pixels, drawn and found, with the scores of task 1 of each picture and their
means.
"""

import argparse
import json
import pathlib
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
from isic_challenge_scoring import confusion
from isic_challenge_scoring import metrics as isic
from isic_challenge_scoring.segmentation import SegmentationScore
from sklearn import metrics


def by_isic(labels, scores):
    n, k = scores.shape
    ones = pd.Series(np.ones(n))
    truth = pd.DataFrame(np.eye(k)[labels], columns=[str(c) for c in range(k)])
    given = pd.DataFrame(scores, columns=truth.columns)
    rows = []
    for c in truth.columns:
        cm = confusion.create_binary_confusion_matrix((truth[c] > 0.5).to_numpy(), (given[c] > 0.5).to_numpy())
        row = {
            name: float(getattr(isic, "binary_" + name)(cm))
            for name in ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")
        }
        if 0 < truth[c].sum() < n:
            row["auc"] = float(isic.auc(truth[c], given[c], ones))
            row["auc80"] = float(isic.auc_above_sensitivity(truth[c], given[c], ones, 0.8))
            row["ap"] = float(isic.average_precision(truth[c], given[c], ones))
        rows.append(row)
    return {"balanced_accuracy": float(isic.balanced_multiclass_accuracy(truth, given, ones)), "classes": rows}


def calibration_error(labels, scores):
    top, right = scores.max(1).astype(np.float64), scores.argmax(1) == labels
    error = 0.0
    for low in np.arange(15) / 15:
        bin = (top > low) & (top <= low + 1 / 15)
        if bin.any():
            error += bin.mean() * abs(right[bin].mean() - top[bin].mean())
    return float(error)


def sensitivity_at(labels, scores, c, specificity):
    if not 0 < (labels == c).sum() < len(labels):
        return None
    fpr, tpr, _ = metrics.roc_curve(labels == c, scores[:, c], drop_intermediate=False)
    return float(tpr[1 - fpr >= specificity - 1e-12].max())


def case(name, labels, scores):
    scores = np.asarray(scores, np.float32)
    labels = np.asarray(labels)
    n, k = scores.shape
    classes = np.arange(k)
    predicted = scores.argmax(1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    auc = [
        float(metrics.roc_auc_score(labels == c, scores[:, c])) if 0 < (labels == c).sum() < n else None
        for c in classes
    ]
    defined = [a for a in auc if a is not None]

    def macro(average):
        return float(metrics.f1_score(labels, predicted, labels=classes, average=average, zero_division=0))

    return {
        "name": name,
        "classes": k,
        "labels": labels.tolist(),
        "scores": [float(str(x)) for x in scores.ravel()],
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(labels, predicted)),
        "macro_f1": macro("macro"),
        "weighted_f1": macro("weighted"),
        "macro_auc": float(np.mean(defined)) if defined else None,
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "auc": auc,
        "support": np.bincount(labels, minlength=k).tolist(),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=classes).tolist(),
        "isic": by_isic(labels, scores),
        "calibration_error": calibration_error(labels, scores),
        "sensitivity_at_90": [sensitivity_at(labels, scores, c, 0.9) for c in classes],
    }


def probabilities(rng, labels, k, skill):
    """Softmax of noise plus `skill` on the true class."""
    logits = rng.normal(size=(len(labels), k))
    logits[np.arange(len(labels)), labels] += skill
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def cases(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(7), 12)
    yield case("balanced", labels, probabilities(rng, labels, 7, 1.5))

    # The class shares of HAM10000.
    labels = rng.choice(7, 200, p=np.array([327, 514, 1099, 115, 1113, 6705, 142]) / 10015)
    yield case("imbalanced", labels, probabilities(rng, labels, 7, 1.0))

    labels = rng.choice([0, 1, 3], 60)
    yield case("missing class", labels, probabilities(rng, labels, 4, 1.0))

    labels = rng.integers(0, 4, 60)
    scores = probabilities(rng, labels, 4, 1.0)
    scores[:, 2] *= 1e-3
    yield case("never predicted class", labels, scores)

    labels = rng.choice([0, 1], 40)
    scores = probabilities(rng, labels, 3, 1.0)
    scores[:, 2] = 0
    yield case("class neither present nor predicted", labels, scores)

    labels = rng.integers(0, 5, 80)
    yield case("ties", labels, np.round(probabilities(rng, labels, 5, 1.0) * 4) / 4)

    labels = rng.integers(0, 3, 30)
    yield case("constant scores", labels, np.full((30, 3), 1 / 3))

    labels = rng.choice(2, 50, p=[0.8, 0.2])
    yield case("two classes", labels, probabilities(rng, labels, 2, 1.0))

    labels = np.full(10, 1)
    yield case("one class only", labels, probabilities(rng, labels, 3, 0.5))

    yield case("one sample", [2], [[0.2, 0.5, 0.3]])


def masks(seed):
    """Masks of 8 x 6 pixels: blurred noise, good and bad answers, empty and full ones, and grays about the threshold."""
    rng = np.random.default_rng([seed, 2])

    def drawn(share):
        noise = rng.normal(size=(8, 6)).cumsum(0).cumsum(1)
        return np.where(noise > np.quantile(noise, 1 - share), 255, 0).astype(np.uint8)

    def spoilt(mask, pixels):
        mask = mask.copy()
        mask.flat[rng.choice(mask.size, pixels, replace=False)] ^= 255
        return mask

    empty, full = np.zeros((8, 6), np.uint8), np.full((8, 6), 255, np.uint8)
    pairs = [(m, spoilt(m, k)) for k in (0, 1, 4, 7, 9, 20) for m in [drawn(0.4)]]
    pairs += [(empty, empty), (full, full), (empty, full), (full, empty), (empty, spoilt(empty, 1))]
    pairs.append((rng.integers(126, 132, (8, 6)).astype(np.uint8), rng.integers(126, 132, (8, 6)).astype(np.uint8)))

    def of(pairs):
        # What the scorer reads from files.
        images = [SimpleNamespace(image_id=str(i), truth_image=t, prediction_image=p) for i, (t, p) in enumerate(pairs)]
        return SegmentationScore(images).macro_average.to_dict()

    rows = [{"drawn": t.ravel().tolist(), "found": p.ravel().tolist(), "scores": of([(t, p)])} for t, p in pairs]
    return {"pictures": rows, "mean": of(pairs)}


def main():
    parser = argparse.ArgumentParser(description="Makes the golden file of the classification metrics.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    # scikit-learn warns where labels hold one class, or predictions a class that the labels lack: both are meant here.
    warnings.simplefilter("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases(args.seed))
    drawn = json.dumps(masks(args.seed), separators=(",", ":"))
    (args.out / "metrics.json").write_text(f'{{\n"seed":{args.seed},\n"cases":[\n{rows}\n],\n"masks":{drawn}\n}}\n')


if __name__ == "__main__":
    main()
