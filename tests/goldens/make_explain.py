#!/usr/bin/env python3
"""Makes explain.json: where PyTorch says that models look.

    pip install torch==2.15.0 torchvision timm numpy
    python make_explain.py [--seed 1] [--out DIR]

The models and weights of make.py (see there), in evaluation mode. Pictures have 8 bits: the bytes of picture n, counted in
the order N, H, W, C, are `floor(256 u)` of `"batch/0/images"`, and the model sees `byte / 127.5 - 1`. As in make.py single
elements of the weights are moved, so that rounding decides nothing in a ReLU or a max-pool.

Each map is computed in float64 from the definitions in the papers, with gradients by hooks on modules, and stored with one as
its largest value. The distance to the same in float32 is printed, and must be small.

    grad-cam      ReLU(sum_k w_k A_k), w_k the mean of G_k (Selvaraju et al., 2017)
    grad-cam++    the same with w_k the sum of alpha_k ReLU(G_k), alpha = G^2 / (2 G^2 + S G^3), S the sum of A_k
                  (Chattopadhay et al., 2018, with an exponential score)
    rollout       the first row of the product of (mean over the heads of A + I) / 2 (Abnar and Zuidema, 2020)

`asked` has the class to be explained of each picture, or null for the predicted one; `classes` those that are explained. Of a
model that segments, the score is the sum of the logits that are positive, or of all where none is.
"""

import argparse
import pathlib

import numpy as np
import torch

from make import build, filled, part, segments, shorts, weights, write

# (model, height, width, batch, [(layer, or none for the default, methods)])
BOTH = ("grad-cam", "grad-cam++")
CASES = [
    ("simple-cnn", 48, 40, 3, [(None, BOTH)]),
    ("resnet18", 96, 64, 4, [(None, BOTH), ("layer3", BOTH), ("layer4.0.conv1", ("grad-cam",))]),
    ("resnet50-se", 64, 96, 2, [(None, BOTH)]),
    ("efficientnet-b0", 96, 64, 3, [(None, BOTH), ("features.5.1", ("grad-cam",))]),
    ("inception-resnet-v2", 139, 171, 2, [(None, BOTH), ("mixed_7a", BOTH)]),
    ("vit-small-16", 64, 64, 3, [(None, ("rollout", "grad-cam")), ("blocks.8", ("grad-cam",))]),
    ("unet-small", 32, 48, 2, [(None, BOTH), ("encoder4", BOTH), ("decoder4", BOTH)]),
    ("unet-resnet18", 64, 96, 2, [(None, BOTH), ("decoder.blocks.0", BOTH), ("decoder.blocks.1", BOTH)]),
]
DEFAULTS = {
    "simple-cnn": "conv3",
    "resnet18": "layer4",
    "resnet50-se": "layer4",
    "efficientnet-b0": "features.8",
    "inception-resnet-v2": "conv2d_7b",
    "vit-small-16": "blocks.11.norm1",
    "unet-small": "bottleneck",
    "unet-resnet18": "encoder.layer4",
}
# How far float32 may be from float64 in a normalised map, for a comparison to mean something.
ROUNDING = 1e-4
# How far from zero the largest value of a map must be, by the largest in size.
EMPTY = 1e-2
# How far the two largest logits must be apart where the predicted class is explained.
DECIDED = 1e-3


def pictures(seed, n, height, width):
    """8-bit pictures [N, C, H, W], as the models see them, in float64."""
    data = filled(seed, "batch/0/images", (n, height, width, 3), lambda u: np.floor(256 * u))
    return torch.from_numpy(data).double().permute(0, 3, 1, 2).contiguous() / 127.5 - 1


class Tap:
    """The output of a module and its gradient, in [N, places, channels]."""

    def __init__(self, net, model, layer):
        self.value = None
        if model == "simple-cnn":
            # The baseline's layers end with their activation, which is one module for all: the third call.
            calls = iter(range(4))
            net.relu.register_forward_hook(lambda m, i, out: self.keep(out) if next(calls) == 2 else None)
        else:
            net.get_submodule(layer).register_forward_hook(lambda m, i, out: self.keep(out))

    def keep(self, out):
        # A copy takes its place, so that what writes over it later leaves it as it is.
        self.value = out
        out.retain_grad()
        return out.clone()

    def rows(self, x):
        """Maps as rows; of a transformer's tokens those of patches."""
        return x.flatten(2).transpose(1, 2) if x.dim() == 4 else x[:, 1:]

    def grid(self, height, width):
        return list(self.value.shape[2:]) if self.value.dim() == 4 else [height // 16, width // 16]


def gradient_maps(net, model, tap, x, asked):
    """Logits, explained classes, and the maps by method, before the last ReLU."""
    # Gradients must reach the layer, whatever comes before it.
    x = x.clone().requires_grad_()
    logits = net(x)
    if segments(model):
        classes = [0] * len(x)
        drawn = (logits > 0) | (logits <= 0).all(3, True).all(2, True)
        score = logits[drawn].sum()
    else:
        ranks = logits.argsort(1, descending=True)
        classes = [int(row[0] if a is None else row[a]) for row, a in zip(ranks, asked)]
        score = sum(row[c] for row, c in zip(logits, classes))
    score.backward()
    a, g = tap.rows(tap.value.detach()), tap.rows(tap.value.grad)
    alpha = g**2 / (2 * g**2 + a.sum(1, keepdim=True) * g**3)
    alpha = torch.where(g == 0, 0, alpha)
    by = {"grad-cam": g.mean(1), "grad-cam++": (alpha * g.relu()).sum(1)}
    return logits.detach(), classes, {m: (a * w[:, None]).sum(2) for m, w in by.items()}


def rollout(net, x):
    """Logits and maps."""
    seen = []
    for block in net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = net(x)
    product = torch.eye(seen[0].shape[-1], dtype=x.dtype)
    for attention in seen:
        mixed = attention.mean(1) + torch.eye(attention.shape[-1], dtype=x.dtype)
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    return logits, product[:, 0, 1:]


def normalised(maps):
    """With one as the largest value; all zero where nothing is positive, as happens with random weights. None where that is
    not decided, or is so of most pictures."""
    peak = maps.amax(1, keepdim=True)
    decided = (peak.abs() > EMPTY * maps.abs().amax(1, keepdim=True)).all()
    if not decided or (peak > 0).double().mean() < 0.5:
        return None
    return torch.where(peak > 0, maps.relu() / peak, 0)


def maps_of(model, height, width, init, x, asked, layers, dtype):
    """The explained classes, and for each layer and method (rows and columns, maps)."""
    x, found, classes = x.to(dtype), {}, None
    for layer, methods in layers:
        net = build(model, height, width).to(dtype).eval()
        net.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
        tap = Tap(net, model, layer or DEFAULTS[model])
        logits, classes, maps = gradient_maps(net, model, tap, x, asked)
        if not segments(model):
            top = logits.topk(2, -1).values
            assert (top[:, 0] - top[:, 1]).min() > DECIDED, "two classes are as likely: choose another seed"
        grid = tap.grid(height, width)
        for method in methods:
            if method == "rollout":
                fresh = build(model, height, width).to(dtype).eval()
                fresh.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
                maps[method] = rollout(fresh, x)[1]
            found[layer, method] = grid, normalised(maps[method])
    return classes, found


def case(model, height, width, n, layers, seed):
    init = weights(model, build(model, height, width), seed)
    x = pictures(seed, n, height, width)
    moved = part(model, init, x.float(), training=False)
    # The predicted class of every other picture, and the next in rank of the rest.
    asked = [None if i % 2 == 0 or segments(model) else 1 for i in range(n)]
    classes, found = maps_of(model, height, width, init, x, asked, layers, torch.float64)
    _, rounded = maps_of(model, height, width, init, x, asked, layers, torch.float32)
    maps = []
    for (layer, method), (grid, values) in found.items():
        name = layer or DEFAULTS[model]
        if values is None:
            print(f"{model} {method} of {name}: left out, since maps are empty, or nearly so", flush=True)
            continue
        gap = (rounded[layer, method][1].double() - values).abs().max().item()
        print(f"{model} {method} of {name} {grid}: float32 - float64 {gap:.1e}, mean {values.mean():.2f}", flush=True)
        assert gap < ROUNDING
        maps.append({"layer": layer, "name": name, "method": method, "grid": grid, "values": shorts(values)})
    return {
        "model": model,
        "height": height,
        "width": width,
        "asked": [None if a is None else c for a, c in zip(asked, classes)],
        "classes": classes,
        "moved": [
            {"name": k, "indices": elements, "values": shorts(init[k].view(-1)[elements])}
            for k, elements in moved.items()
        ],
        "maps": maps,
    }


def main():
    parser = argparse.ArgumentParser(description="Makes the golden file of what explains models.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    cases = [case(*c, args.seed) for c in CASES]
    write(args.out / "explain.json", {"seed": args.seed, "torch": torch.__version__, "cases": cases})


if __name__ == "__main__":
    main()
