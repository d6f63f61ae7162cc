#!/usr/bin/env python3
"""Lists the names and shapes of all weights of the models that others publish and this program has, in `keys.json`.

    pip install torch torchvision timm        # or: pip install tensorflow keras
    python make_keys.py --only torchvision timm
    python make_keys.py --only keras

One list a library and model, as a tree of the names' parts with shapes as leaves (`num_batches_tracked` left out). Lists of
libraries that are not named in `--only` stay as they are in the file. Keras numbers the layers it names itself from where it
stopped before: two models are made, and the second one is listed, so that its numbers do not begin at zero.
"""

import argparse
import json
import pathlib

CLASSES = 1000
# Our name: the library's.
TORCHVISION = {n: n for n in ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]}
TORCHVISION["efficientnet-b0"] = "efficientnet_b0"
TIMM = dict(TORCHVISION)
TIMM |= {"seresnet50": "seresnet50", "inception-resnet-v2": "inception_resnet_v2"}
TIMM["vit-small-16"] = "vit_small_patch16_224"
KERAS = {"resnet50-keras": "ResNet50", "resnet101-keras": "ResNet101", "resnet152-keras": "ResNet152"}
KERAS["inception-resnet-v2"] = "InceptionResNetV2"


def tree(shapes, separator):
    """Nested dicts by the parts of the names."""
    root = {}
    for name, shape in shapes.items():
        *path, last = name.split(separator)
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[last] = list(shape)
    return root


def state(model):
    return {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def torchvision_keys():
    import torchvision

    return {ours: tree(state(getattr(torchvision.models, name)(weights=None)), ".") for ours, name in TORCHVISION.items()}


def timm_keys():
    import timm

    return {ours: tree(state(timm.create_model(name, num_classes=CLASSES)), ".") for ours, name in TIMM.items()}


def keras_keys():
    import keras

    def shapes(name):
        build = getattr(keras.applications, name)
        build(weights=None, classes=CLASSES)
        model = build(weights=None, classes=CLASSES)
        return {f"{layer.name}/{v.name}": tuple(v.shape) for layer in model.layers for v in layer.variables}

    return {ours: tree(shapes(name), "/") for ours, name in KERAS.items()}


def main():
    libraries = {"torchvision": torchvision_keys, "timm": timm_keys, "keras": keras_keys}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=libraries, default=list(libraries))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "keys.json")
    args = parser.parse_args()
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for library in args.only:
        known[library] = libraries[library]()
    lines = []
    for library, models in sorted(known.items()):
        rows = [f"{json.dumps(m)}:{json.dumps(t, separators=(',', ':'))}" for m, t in models.items()]
        lines.append(f"{json.dumps(library)}:{{\n" + ",\n".join(rows) + "}")
    args.out.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
