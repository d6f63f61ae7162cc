#!/usr/bin/env python3
"""Makes whole weight files with the original libraries, has `lesion-gpu predict` read them, and compares the logits.

    pip install tensorflow keras pillow            # or: pip install torch torchvision timm safetensors pillow
    python check_frameworks.py keras [--seed 1] [--program target/release/lesion-gpu] [--only MODEL ...]
    python check_frameworks.py torch [...]

Each file is written by the library's own function to a temporary folder; the picture is noise of the network's size, so that
nothing is resized; both get the normalisation that the library uses for the model. Weights are drawn anew, since no download
is needed to compare. The error is the largest difference by the largest logit; above 1e-4 the exit code is 1.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

LIMIT = 1e-4
CLASSES = 1000
SIZES = {"inception-resnet-v2": 299, "simple-cnn": 128}


def size_of(model):
    return SIZES.get(model, 224)


def picture(seed, size):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


class Check:
    def __init__(self, args, folder):
        self.args, self.folder, self.worst = args, folder, 0.0

    def wanted(self, model):
        return not self.args.only or model in self.args.only

    def compare(self, model, file, pixels, want, more=()):
        """Runs the program on the file and compares."""
        image = self.folder / "picture.png"
        Image.fromarray(pixels).save(image)
        command = [self.args.program, "predict", "--model", model, "--weights", file, "--size", str(len(pixels))]
        command += ["--logits", "--format", "json", *more, image]
        result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{file}: exit code {result.returncode}\n{result.stderr}")
        ours = np.array(json.loads(result.stdout)[0]["logits"])
        error = np.abs(ours - want).max() / np.abs(want).max()
        self.worst = max(self.worst, error)
        size = file.stat().st_size / 2**20
        print(f"{model:20} {file.name:34} {size:7.1f} MiB  error {error:.1e}", flush=True)
        for line in result.stderr.splitlines():
            print(f"    {line}")
        file.unlink()


def check_keras(check):
    import keras

    import make_logits

    preprocess = {"resnet50-keras": keras.applications.resnet.preprocess_input}
    preprocess |= {"resnet101-keras": preprocess["resnet50-keras"], "resnet152-keras": preprocess["resnet50-keras"]}
    preprocess["inception-resnet-v2"] = keras.applications.inception_resnet_v2.preprocess_input
    names = {"resnet50-keras": "ResNet50", "resnet101-keras": "ResNet101", "resnet152-keras": "ResNet152"}
    names["inception-resnet-v2"] = "InceptionResNetV2"
    # The baseline as its users write it, with layers that Keras names.
    layers = keras.layers
    baseline = [keras.Input((128, 128, 3)), layers.Rescaling(1 / 255)]
    for filters in (32, 64, 128):
        baseline += [layers.Conv2D(filters, 3, activation="relu"), layers.MaxPooling2D()]
    baseline += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5), layers.Dense(7)]
    names["simple-cnn"] = "Sequential"
    preprocess["simple-cnn"] = lambda pixels: pixels
    for ours, name in names.items():
        if not check.wanted(ours):
            continue
        if ours == "simple-cnn":
            model, more = keras.Sequential(baseline), ["--normalize", "unit"]
        else:
            model, more = getattr(keras.applications, name)(weights=None, classes=CLASSES, classifier_activation=None), []
        for layer in model.layers:
            draw = make_logits.weight
            layer.set_weights([draw(check.args.seed, layer.name, v.name, tuple(v.shape)) for v in layer.weights])
        pixels = picture(check.args.seed, size_of(ours))
        want = model.predict(preprocess[ours](pixels[None].astype(np.float32)), verbose=0)[0]
        for file, save in [
            (f"{name}.h5", model.save),
            (f"{name}.keras", model.save),
            (f"{name}.weights.h5", model.save_weights),
        ]:
            save(check.folder / file)
            check.compare(ours, check.folder / file, pixels, want, more)


def check_torch(check):
    import safetensors.torch
    import timm
    import torch
    import torchvision

    mean_std = {"imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "tf": ([0.5] * 3, [0.5] * 3)}
    models = [(n, lambda n=n: getattr(torchvision.models, n)(weights=None), "imagenet") for n in ("resnet18", "resnet50")]
    models.append(("efficientnet-b0", lambda: torchvision.models.efficientnet_b0(weights=None), "imagenet"))
    for ours, name, pixels in [
        ("resnet50", "resnet50", "imagenet"),
        ("seresnet50", "seresnet50", "imagenet"),
        ("efficientnet-b0", "efficientnet_b0", "imagenet"),
        ("inception-resnet-v2", "inception_resnet_v2", "tf"),
        ("vit-small-16", "vit_small_patch16_224", "tf"),
    ]:
        models.append((ours, lambda name=name: timm.create_model(name), pixels))
    for ours, build, pixels_of in models:
        if not check.wanted(ours):
            continue
        torch.manual_seed(check.args.seed)
        model = build().eval()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.75, 1.25)
        pixels = picture(check.args.seed, size_of(ours))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in mean_std[pixels_of])
        with torch.no_grad():
            x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            want = model(((x - mean) / std)[None])[0].numpy()
        stem = f"{type(model).__module__.split('.')[0]}-{ours}"
        state = model.state_dict()
        for file, save in [
            (f"{stem}.pth", torch.save),
            (f"{stem}-legacy.pth", lambda s, f: torch.save(s, f, _use_new_zipfile_serialization=False)),
            (f"{stem}.safetensors", safetensors.torch.save_file),
        ]:
            save(state, str(check.folder / file))
            check.compare(ours, check.folder / file, pixels, want)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=["keras", "torch"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("target/release/lesion-gpu"))
    parser.add_argument("--only", nargs="+", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args, pathlib.Path(folder))
        {"keras": check_keras, "torch": check_torch}[args.library](check)
    print(f"worst error {check.worst:.1e}")
    sys.exit(int(check.worst > LIMIT))


if __name__ == "__main__":
    main()
