#!/usr/bin/env python3
"""Trains a classifier on HAM10000 in PyTorch, by the recipe of this program: a reference to check its results with.

    pip install torch torchvision numpy pillow scikit-learn safetensors
    python train_reference.py --data ham10000.zip --model simple-cnn --size 64
    python train_reference.py --data ham10000.zip --split split.json --model resnet18 --init weights.safetensors

The recipe:
- Data: a zip or folder with a metadata CSV (columns lesion_id, image_id, dx) and JPEG files named by image id, at any
  depth; of several files with one id the first counts. Classes in alphabetical order.
- Images: decoded to RGB, resized to size x size by Pillow's bilinear filter (antialiased: its support grows with the
  scale), kept as 8-bit values, then divided by 255. `--normalize imagenet`, the default, then subtracts ImageNet's mean
  and divides by its standard deviation, each by channel; `--normalize unit` does not.
- Split: `--split`, either JSON {"train": [image ids], "val": [...], "test": [...]} or CSV with columns image_id,split.
  Without it: 70/15/15 by lesion, stratified by class, so no lesion has images in two parts.
- Training: Adam (betas .9, .999, eps 1e-8, no weight decay); cross-entropy weighted by N / (K n_c), counted on the
  train part, and divided by the batch's sum of weights (reduction="mean"); each train image flipped left-right and,
  independently, top-bottom with probability 1/2; reshuffled each epoch; the last, smaller batch is kept.
- Evaluation: the val part after each epoch; at the end the test part, once, with the weights of the epoch whose
  `--monitor` was best on val.

To compare training step by step with another program: `--no-augment --no-shuffle --dropout 0 --steps N` takes the
train part in the order of the split file, wrapping around, and writes `step,loss` to steps.csv. Write the initial
weights with `--save-init`, or give them with `--init`.
"""

import argparse
import copy
import csv
import io
import json
import pathlib
import sys
import time
import warnings
import zipfile

import numpy as np
import safetensors.torch
import torch
import torchvision
from PIL import Image
from sklearn import metrics
from torch import nn

PARTS = ("train", "val", "test")
# Mean and standard deviation of each channel.
NORMALIZATIONS = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class SimpleCnn(nn.Module):
    """Conv32-Conv64-Conv128 (3x3 valid, ReLU, max-pool 2), flatten in H, W, C order, dense 128 ReLU, dropout, dense."""

    def __init__(self, size, classes, dropout):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.conv3 = nn.Conv2d(64, 128, 3)
        side = size
        for _ in range(3):
            side = (side - 2) // 2
        self.fc1 = nn.Linear(side * side * 128, 128)
        self.fc2 = nn.Linear(128, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.max_pool2d(torch.relu(conv(x)), 2)
        x = torch.relu(self.fc1(x.permute(0, 2, 3, 1).flatten(1)))
        return self.fc2(self.dropout(x))


def open_data(path):
    """({file name: key}, read(key) -> bytes) of a folder or a zip; the first of equal names wins."""
    files = {}
    if path.is_dir():
        for p in sorted(path.rglob("*")):
            if p.is_file():
                files.setdefault(p.name, p)
        return files, lambda p: p.read_bytes()
    archive = zipfile.ZipFile(path)
    for name in sorted(archive.namelist()):
        if not name.endswith("/") and "__MACOSX" not in name:
            files.setdefault(name.rsplit("/", 1)[-1], name)
    return files, archive.read


def read_metadata(files, read):
    """Rows of the metadata: dicts with lesion_id, image_id and dx."""
    for name in sorted(files):
        if "metadata" in name.lower() and not name.lower().endswith((".jpg", ".png")):
            text = read(files[name]).decode("utf-8-sig")
            rows = list(csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ","))
            if rows and {"lesion_id", "image_id", "dx"} <= rows[0].keys():
                return rows
    sys.exit("no metadata with the columns lesion_id, image_id and dx")


def grouped_split(rows, seed, shares=(0.7, 0.15, 0.15)):
    """70/15/15 by lesion within each class: a shuffled lesion goes to the part that lacks most images."""
    rng = np.random.default_rng(seed)
    split = {part: [] for part in PARTS}
    for dx in sorted({r["dx"] for r in rows}):
        lesions = {}
        for r in rows:
            if r["dx"] == dx:
                lesions.setdefault(r["lesion_id"], []).append(r["image_id"])
        groups = list(lesions.values())
        total = sum(map(len, groups))
        missing = [share * total for share in shares]
        for i in rng.permutation(len(groups)):
            part = int(np.argmax(missing))
            missing[part] -= len(groups[i])
            split[PARTS[part]] += groups[i]
    rng.shuffle(split["train"])
    return split


def read_split(path):
    """{part: image ids} in the order of the file."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        return {part: content.get(part, []) for part in PARTS}
    split = {part: [] for part in PARTS}
    with path.open(newline="", encoding="utf-8-sig") as f:
        for row in csv.DictReader(f):
            if row["split"] not in split:
                sys.exit(f"{path}: unknown part {row['split']}; expected one of {', '.join(PARTS)}")
            split[row["split"]].append(row["image_id"])
    return split


def load(ids, label_of, files, read, size):
    """Images [N, 3, size, size] as uint8, and labels [N]."""
    images = np.empty((len(ids), size, size, 3), np.uint8)
    for i, image_id in enumerate(ids):
        name = next((n for n in (image_id + ".jpg", image_id + ".jpeg", image_id + ".png") if n in files), None)
        if name is None or image_id not in label_of:
            sys.exit(f"the data lacks {'the image' if name is None else 'a label'} of {image_id}")
        picture = Image.open(io.BytesIO(read(files[name]))).convert("RGB")
        images[i] = picture.resize((size, size), Image.Resampling.BILINEAR)
    labels = torch.tensor([label_of[i] for i in ids], dtype=torch.long)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def normalized(images, name):
    """Float images [N, 3, H, W] of 8-bit ones, by a row of NORMALIZATIONS."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in NORMALIZATIONS[name])
    return (images.float() / 255 - mean) / deviation


def evaluate(model, images, labels, args, weight):
    """Weighted loss, accuracy, balanced accuracy and macro F1 in eval mode; leaves the model in eval mode."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(normalized(images[i : i + args.batch], args.normalize))
                            for i in range(0, len(images), args.batch)])
    predicted = logits.argmax(1).numpy()
    truth = labels.numpy()
    return {
        "loss": nn.functional.cross_entropy(logits, labels, weight).item(),
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "macro_f1": metrics.f1_score(
            truth, predicted, labels=range(logits.shape[1]), average="macro", zero_division=0
        ),
    }, predicted


def shown(scores):
    return ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in scores.items())


def main():
    parser = argparse.ArgumentParser(description="Trains a PyTorch reference on HAM10000.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="zip or folder of HAM10000")
    parser.add_argument("--split", type=pathlib.Path, help="JSON or CSV; default: 70/15/15 by lesion")
    parser.add_argument("--model", choices=["simple-cnn", "resnet18", "resnet50"], default="simple-cnn")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--normalize", choices=NORMALIZATIONS, default="imagenet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.5, help="of simple-cnn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--monitor", choices=["balanced_accuracy", "macro_f1", "accuracy", "loss"],
                        default="balanced_accuracy", help="what decides the best epoch, on the val part")
    parser.add_argument("--init", type=pathlib.Path, help="safetensors of initial weights; keys it lacks stay random")
    parser.add_argument("--save-init", type=pathlib.Path, help="write the initial weights as safetensors")
    parser.add_argument("--save-split", type=pathlib.Path, help="write the split as JSON")
    parser.add_argument("--no-augment", action="store_true")
    parser.add_argument("--no-shuffle", action="store_true")
    parser.add_argument("--steps", type=int, help="train this many steps only, and write steps.csv; no evaluation")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), help="folder of steps.csv")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    # scikit-learn warns where a class is never predicted: usual in the first epochs.
    warnings.simplefilter("ignore")

    files, read = open_data(args.data)
    rows = read_metadata(files, read)
    names = sorted({r["dx"] for r in rows})
    label_of = {r["image_id"]: names.index(r["dx"]) for r in rows}
    split = read_split(args.split) if args.split else grouped_split(rows, args.seed)
    if args.save_split:
        args.save_split.write_text(json.dumps(split))
    parts = ("train",) if args.steps else PARTS
    for part in parts:
        if not split[part]:
            sys.exit(f"the {part} part of the split is empty")
    data = {part: load(split[part], label_of, files, read, args.size) for part in parts}
    for part, (_, y) in data.items():
        counts = np.bincount(y.numpy(), minlength=len(names))
        print(f"{part}: {len(y)} images:", ", ".join(f"{n} {c}" for n, c in zip(names, counts)), flush=True)

    if args.model == "simple-cnn":
        model = SimpleCnn(args.size, len(names), args.dropout)
    else:
        model = getattr(torchvision.models, args.model)(weights=None, num_classes=len(names))
    print(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters")
    if args.init:
        result = model.load_state_dict(safetensors.torch.load_file(args.init), strict=False)
        if result.unexpected_keys:
            sys.exit(f"{args.init} holds keys the model lacks: {result.unexpected_keys}")
        missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
        print(f"initial weights from {args.init}; random: {', '.join(missing) or 'none'}")
    if args.save_init:
        state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
        safetensors.torch.save_file(state, args.save_init)

    x, y = data["train"]
    counts = torch.bincount(y, minlength=len(names))
    if (counts == 0).any():
        sys.exit("the train part lacks a class")
    weight = len(y) / (len(names) * counts.float())
    adam = torch.optim.Adam(model.parameters(), lr=args.lr)

    def step(index):
        images = normalized(x[index], args.normalize)
        if not args.no_augment:
            for dim in (3, 2):
                flip = torch.rand(len(index)) < 0.5
                images[flip] = images[flip].flip(dim)
        loss = nn.functional.cross_entropy(model(images), y[index], weight)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    def epochs():
        """Index tensors of each batch, epoch by epoch, for ever."""
        while True:
            order = torch.arange(len(y)) if args.no_shuffle else torch.randperm(len(y))
            yield order.split(args.batch)

    if args.steps:
        args.out.mkdir(parents=True, exist_ok=True)
        model.train()
        with (args.out / "steps.csv").open("w") as f:
            f.write("step,loss\n")
            batches = (index for epoch in epochs() for index in epoch)
            for n, index in zip(range(args.steps), batches):
                f.write(f"{n},{step(index)!r}\n")
        return

    sign = -1 if args.monitor == "loss" else 1
    best, best_epoch, best_state = -float("inf"), 0, None
    for epoch, batches in zip(range(1, args.epochs + 1), epochs()):
        start = time.perf_counter()
        model.train()
        losses = [step(index) for index in batches]
        seconds = time.perf_counter() - start
        scores, _ = evaluate(model, *data["val"], args, weight)
        print(f"epoch {epoch}: train loss {np.mean(losses):.4f} ({seconds:.1f} s); val: {shown(scores)}", flush=True)
        if sign * scores[args.monitor] > best:
            best, best_epoch, best_state = sign * scores[args.monitor], epoch, copy.deepcopy(model.state_dict())

    if best_state is None:
        sys.exit(f"{args.monitor} was never a number")
    model.load_state_dict(best_state)
    scores, predicted = evaluate(model, *data["test"], args, weight)
    print(f"test with the weights of epoch {best_epoch}: {shown(scores)}")
    print(metrics.classification_report(data["test"][1], predicted, target_names=names,
                                        labels=range(len(names)), digits=4, zero_division=0))


if __name__ == "__main__":
    main()
