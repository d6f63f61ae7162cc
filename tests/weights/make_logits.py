#!/usr/bin/env python3
"""What Keras computes for its own models, in `keras-logits.json`, for our models with tensors from Keras to be compared with.

    pip install tensorflow keras numpy
    python make_logits.py [--seed 1] [--out FILE]

No weight and no image is stored: they come from the generator of `src/rng.rs`, as in `tests/goldens/make.py`, whose rules
hold here too, with STREAM `"weights/" + LAYER/VARIABLE` and `i` counting in Keras's layout. `u` is uniform in [0, 1):

    kernel of a convolution    (2u - 1) * sqrt(6 / fan_in)
    kernel of a dense layer    (2u - 1) / sqrt(fan_in)
    bias                       (2u - 1) * 0.1
    gamma                      1 + 0.2 * (2u - 1), and 0.3 times that in the last batch-norm of a block (`_3_bn`)
    beta                       0.2 * (2u - 1)
    moving_mean                0.1 * (2u - 1)
    moving_variance            0.75 + 0.5 * u

Images [N, H, W, 3] are `2u - 1` from `"batch/0/images"`. As in `make_keys.py` the second of two models is taken, so that the
layers that Keras names have the numbers they have there.
"""

import argparse
import json
import pathlib

import keras
import numpy as np

HERE = pathlib.Path(__file__).parent
CLASSES = 7
BATCH = 2
# Our name, Keras's, the side of the images.
MODELS = [("resnet50-keras", "ResNet50", 64), ("inception-resnet-v2", "InceptionResNetV2", 96)]


def threefry(key, count):
    """First output words of Threefry-2x32-20 at counters 0..count: the generator of src/rng.rs."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    ks = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(0x1BD11BDA ^ key[0] ^ key[1])]
    with np.errstate(over="ignore"):
        x0 = np.arange(count, dtype=np.uint32) + ks[0]
        x1 = np.zeros(count, dtype=np.uint32) + ks[1]
        for group in range(5):
            for r in rotations[group % 2]:
                x0 += x1
                x1 = (x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))
                x1 ^= x0
            x0 += ks[(group + 1) % 3]
            x1 += ks[(group + 2) % 3] + np.uint32(group + 1)
    return x0


def uniform(seed, name, shape):
    h = 0x811C9DC5
    for byte in name.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    words = threefry((seed, h), int(np.prod(shape)))
    return ((words >> np.uint32(8)).astype(np.float64) / 16777216.0).reshape(shape)


def weight(seed, layer, variable, shape):
    u = uniform(seed, f"weights/{layer}/{variable}", shape)
    s = 2 * u - 1
    fan_in = int(np.prod(shape[:-1]))
    rules = {
        "kernel": s * np.sqrt(6 / fan_in) if len(shape) == 4 else s / np.sqrt(fan_in),
        "bias": 0.1 * s,
        "gamma": (0.3 if layer.endswith("_3_bn") else 1.0) * (1 + 0.2 * s),
        "beta": 0.2 * s,
        "moving_mean": 0.1 * s,
        "moving_variance": 0.75 + 0.5 * u,
    }
    return rules[variable].astype(np.float32)


def logits(seed, name, size):
    build = getattr(keras.applications, name)
    options = {"weights": None, "classes": CLASSES, "input_shape": (size, size, 3), "classifier_activation": None}
    build(**options)
    model = build(**options)
    for layer in model.layers:
        layer.set_weights([weight(seed, layer.name, v.name, tuple(v.shape)) for v in layer.variables])
    images = (2 * uniform(seed, "batch/0/images", (BATCH, size, size, 3)) - 1).astype(np.float32)
    return model.predict(images, verbose=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "keras-logits.json")
    args = parser.parse_args()
    rows = []
    for ours, name, size in MODELS:
        values = [float(v) for v in logits(args.seed, name, size).ravel()]
        rows.append({"model": ours, "size": size, "batch": BATCH, "classes": CLASSES, "logits": values})
        print(ours, values)
    golden = {"seed": args.seed, "keras": keras.__version__, "models": rows}
    args.out.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
