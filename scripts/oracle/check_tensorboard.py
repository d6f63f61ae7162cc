#!/usr/bin/env python3
"""Reads the event files of a run with TensorBoard's own reader, and compares them with the run's tables.

    lesion-gpu train --tensorboard ...
    scripts/oracle/check_tensorboard.py runs/resnet18-001

Every step's loss and learning rate and every epoch's scores must be there once, also where the run was stopped, killed and resumed.
Needs the tensorboard package.
"""

import csv
import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def compare(tag, expected):
    found = [(event.step, event.value) for event in events.Scalars(tag)]
    assert [step for step, _ in found] == [step for step, _ in expected], (tag, found[:5], expected[:5])
    for (step, value), (_, other) in zip(found, expected):
        assert math.isclose(value, other, rel_tol=1e-5, abs_tol=1e-6), (tag, step, value, other)
    print(f"{tag}: {len(found)} values agree")


with open(run / "steps.csv", newline="") as file:
    steps = list(csv.DictReader(file))
compare("train/loss", [(int(row["step"]) + 1, float(row["loss"])) for row in steps])
compare("train/learning_rate", [(int(row["step"]) + 1, float(row["lr"])) for row in steps])
with open(run / "results.csv", newline="") as file:
    epochs = list(csv.DictReader(file))
for column in epochs[0]:
    tag = {"train_loss": "epoch/loss", "train_accuracy": "epoch/accuracy"}.get(column, column.replace("val_", "val/", 1))
    if tag in events.Tags()["scalars"]:
        compare(tag, [(int(row["steps"]), float(row[column])) for row in epochs])
metrics = json.loads((run / "metrics.json").read_text())
if metrics["test"]:
    compare("test/loss", [(metrics["steps"], metrics["test"]["loss"])])
for tag in events.Tags()["images"]:
    image = events.Images(tag)[0]
    print(f"{tag}: {image.width}x{image.height}, {len(image.encoded_image_string)} bytes")
text = events.Tensors("configuration")[0].tensor_proto.string_val[0].decode()
assert (run / "config.toml").read_text().splitlines() == [line[4:] for line in text.splitlines()]
print("the configuration agrees")
