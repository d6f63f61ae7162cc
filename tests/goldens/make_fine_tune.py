#!/usr/bin/env python3
"""Makes fine-tune.json: what PyTorch computes in ten steps of fine-tuning, part of the network frozen.

    pip install torch==2.15.0 torchvision numpy
    python make_fine_tune.py [--seed 1] [--out DIR]

ResNet-18 with the weights and batches of make.py (see there). Each recipe freezes parameters as one does in PyTorch,
with `requires_grad = False` and the frozen batch-norm layers in `eval()`, and takes ten steps of AdamW (0.9, 0.999,
1e-8) whose groups differ in learning rate and weight decay. Stored are the ten losses, and summaries (as in make.py)
of what training has moved: some parameters, and running statistics; for a recipe with `ema` those of
`torch.optim.swa_utils.AveragedModel` too, which starts at the initial weights and follows every step.
"""

import argparse
import pathlib

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from make import build, batch, short, summary, weights, write

MODEL, HEIGHT, WIDTH, BATCH, STEPS = "resnet18", 64, 64, 4, 10
DECAY = 0.05

# `train` is what this program calls it; `part` says the same by names. Rates are factors of the learning rate.
RECIPES = [
    {"name": "head", "train": "head", "part": ("fc.",), "lr": 1e-3, "batch_norm": "auto", "rates": {}, "ema": None},
    {
        "name": "stage",
        "train": "stage:layer4..",
        "part": ("layer4.", "fc."),
        "lr": 1e-3,
        "batch_norm": "auto",
        "rates": {"layer4": 0.1},
        "ema": 0.9,
    },
    {
        "name": "frozen-batch-norm",
        "train": "all",
        "part": ("",),
        "lr": 1e-4,
        "batch_norm": "frozen",
        "rates": {"conv1": 0.5},
        "ema": None,
    },
]
# What is stored of each recipe, where it has moved.
KEPT = ["conv1.weight", "layer4.0.conv1.weight", "layer4.1.bn2.weight", "layer4.1.bn2.running_mean", "fc.weight", "fc.bias"]


def run(recipe, init, seed, dtype):
    net = build(MODEL, HEIGHT, WIDTH).to(dtype)
    net.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
    net.train()
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    frozen = {n for n in norms if recipe["batch_norm"] == "frozen" or not (n + ".").startswith(recipe["part"])}
    for name, module in net.named_modules():
        if name in frozen:
            module.eval()
    groups = []
    for key, p in net.named_parameters():
        p.requires_grad = key.startswith(recipe["part"]) and key.rsplit(".", 1)[0] not in frozen
        if p.requires_grad:
            factor = next((f for layer, f in recipe["rates"].items() if key.startswith(layer + ".")), 1.0)
            decay = DECAY if p.dim() > 1 else 0.0
            groups.append({"params": [p], "lr": recipe["lr"] * factor, "weight_decay": decay})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    averaged = None
    if recipe["ema"]:
        averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe["ema"]), use_buffers=True)
        # Its first update copies; that of the initial weights is made here, so that the average starts with them.
        averaged.update_parameters(net)
    losses = []
    for step in range(STEPS):
        x, y = batch(seed, step, BATCH, HEIGHT, WIDTH)
        adamw.zero_grad()
        loss = nn.functional.cross_entropy(net(x.to(dtype)), y)
        loss.backward()
        adamw.step()
        if averaged is not None:
            averaged.update_parameters(net)
        losses.append(loss.item())
    return losses, net.state_dict(), None if averaged is None else averaged.module.state_dict()


def golden(recipe, init, seed):
    losses, after, averaged = run(recipe, init, seed, torch.float32)
    double, exact, _ = run(recipe, init, seed, torch.float64)
    moved = [key for key in KEPT if not torch.equal(after[key], init[key])]
    gap = max(abs(a - b) / b for a, b in zip(losses, double))
    far = {key: ((after[key].double() - exact[key]).norm() / (exact[key] - init[key]).norm()).item() for key in moved}
    print(f"{recipe['name']} seed {seed}: float32 - float64: losses {gap:.1e}, moves {max(far.values()):.1e};", end=" ")
    print(f"losses {losses[0]:.4f} .. {losses[-1]:.4f}, moved {moved}", flush=True)
    return {
        **{k: v for k, v in recipe.items() if k not in ("part", "rates")},
        "rates": [f"{layer}={factor}" for layer, factor in recipe["rates"].items()],
        "losses": [short(x) for x in losses],
        # By how much, so that a tensor which has hardly moved is not compared by its initial values.
        "moves": [summary(seed, key, after[key] - init[key]) for key in moved],
        "averages": [summary(seed, key, averaged[key] - init[key]) for key in moved] if averaged else [],
    }


def main():
    parser = argparse.ArgumentParser(description="Makes the golden file of fine-tuning.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    init = weights(MODEL, build(MODEL, HEIGHT, WIDTH), args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    golden_of = {
        "seed": args.seed,
        "height": HEIGHT,
        "width": WIDTH,
        "batch": BATCH,
        "decay": DECAY,
        "torch": torch.__version__,
        "recipes": [golden(recipe, init, args.seed) for recipe in RECIPES],
    }
    write(args.out / "fine-tune.json", golden_of)


if __name__ == "__main__":
    main()
