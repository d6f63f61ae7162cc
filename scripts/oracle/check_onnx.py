#!/usr/bin/env python3
"""Runs every exported model in onnxruntime and compares it with `lesion-gpu predict --logits`.

    scripts/oracle/check_onnx.py [--binary target/release/lesion-gpu] [--models resnet18,unet-small] [--opset 18]

Each model gets random weights and running statistics, is exported with a batch of any size, and is given the same three
pictures as `predict`, exactly as large as the model wants them (so no resizing is compared): together, and one by one.
Prints a row a model: the largest difference by the largest logit. Of a model that segments only the masks can be compared:
the row says how far from zero a logit was whose pixel is not as it should be. Fails above 1e-4. Needs numpy, pillow,
safetensors, onnx and onnxruntime.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file, save_file

TOLERANCE = 1e-4
CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def pictures(folder, size, seed):
    """PNG files of smooth noise, and the same as [N, 3, H, W] in [0, 1]."""
    rng = np.random.default_rng(seed)
    files, arrays = [], []
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        picture = coarse.resize((size, size), Image.BICUBIC)
        files.append(folder / f"{i}.png")
        picture.save(files[-1])
        arrays.append(np.asarray(picture, dtype=np.float32) / 255)
    return files, np.stack(arrays).transpose(0, 3, 1, 2)


def weights(binary, model, size, file, rng):
    """Random weights that keep activations at about one."""
    tensors = {}
    for tensor in json.loads(run(binary, "models", model, "--size", size, "--classes", len(CLASSES), "--json"))["tensors"]:
        name, shape = tensor["name"], tensor["shape"]
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            values = rng.normal(0, np.sqrt(2 / max(1, np.prod(shape[1:]))), shape)
        else:
            norm = 1.0 if name.endswith("weight") else 0.0
            values = norm + rng.normal(0, 0.1, shape)
        tensors[name] = values.astype(np.float32)
    save_file(tensors, file)


def centre_logits(file, median):
    """Moves the last bias of a model that segments."""
    tensors = load_file(file)
    (last,) = [name for name, values in tensors.items() if values.shape == (1,) and name.endswith("bias")]
    tensors[last] -= median
    save_file(tensors, file)


def masks(predict, files, logits, folder):
    """`predict` gives masks, not logits: the largest logit on the wrong side of zero, by the largest."""
    run(*predict, *files, "--out", folder)
    drawn = np.stack([np.asarray(Image.open(folder / f"{file.stem}_segmentation.png")) > 127 for file in files])
    assert drawn.shape == logits.shape, (drawn.shape, logits.shape)
    assert 0.3 < drawn.mean() < 0.7, f"{drawn.mean():.2f} of the pixels are in the masks: that compares little"
    return np.abs(logits[drawn != (logits > 0)]).max(initial=0) / np.abs(logits).max()


def check(binary, model, size, opset, folder, seed):
    file, exported = folder / "random.safetensors", folder / "model.onnx"
    weights(binary, model, size, file, np.random.default_rng(seed))
    bare = ["--model", model, "--weights", file, "--size", size, "--classes", ",".join(CLASSES)]
    export = [binary, "export", *bare, "--out", exported, "--opset", opset, "--overwrite"]
    run(*export)
    predict = [binary, "predict", *bare]
    onnx.checker.check_model(onnx.load(exported), full_check=True)
    files, images = pictures(folder, size, seed)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    if len(session.get_outputs()[0].shape) == 4:
        # Half of the pixels on each side of zero, or the masks say little.
        centre_logits(file, np.median(session.run(["logits"], {"images": images})[0]))
        run(*export)
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    together = session.run(["logits"], {"images": images})[0]
    alone = np.concatenate([session.run(["logits"], {"images": images[i : i + 1]})[0] for i in range(len(images))])
    if together.ndim == 4:
        assert np.abs(together - alone).max() <= TOLERANCE * np.abs(together).max(), "the batch makes a difference"
        return masks(predict, files, together[:, 0], folder / "masks"), exported.stat().st_size
    answers = json.loads(run(*predict, *files, "--logits", "--format", "json"))
    ours = np.array([a["logits"] for a in answers])
    assert together.shape == ours.shape, (together.shape, ours.shape)
    scale = np.abs(ours).max()
    assert np.isfinite(scale) and np.ptp(ours, axis=0).max() > 1e-3 * scale, "the pictures make no difference"
    return max(np.abs(together - ours).max(), np.abs(alone - ours).max()) / scale, exported.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/lesion-gpu")
    parser.add_argument("--models", help="only these, separated by commas")
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    models = json.loads(run(args.binary, "models", "--json"))
    if args.models:
        models = [m for m in models if m["name"] in args.models.split(",")]
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, operator set {args.opset}, seed {args.seed}")
    print("| model | size | file, MB | largest difference |")
    print("|---|---|---|---|")
    worst = 0
    for model in models:
        size = max(64, -(-model["smallest_size"] // 16) * 16)
        with tempfile.TemporaryDirectory() as folder:
            error, length = check(args.binary, model["name"], size, args.opset, pathlib.Path(folder), args.seed)
        worst = max(worst, error)
        print(f"| {model['name']} | {size} | {length / 1e6:.1f} | {error:.1e} |", flush=True)
    if worst > TOLERANCE:
        sys.exit(f"a difference of {worst:.1e} is more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
