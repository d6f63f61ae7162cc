#!/usr/bin/env python3
"""Times one training step (forward, cross-entropy, backward, Adam) of a torchvision model on the CPU.

    pip install torch torchvision
    python time_step.py --model resnet18 --batch 32 --size 64 -n 10
"""

import argparse
import statistics
import time

import torch
import torchvision
from torch import nn


def main():
    parser = argparse.ArgumentParser(description="Times a training step of a torchvision model on the CPU.")
    parser.add_argument("--model", default="resnet18", help="any classifier of torchvision.models")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--channels-last", action="store_true", help="NHWC memory, often faster")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("-n", type=int, default=10, help="steps timed")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    model = torchvision.models.get_model(args.model, weights=None, num_classes=args.classes).train()
    model = model.to(memory_format=layout)
    x = torch.rand(args.batch, 3, args.size, args.size).to(memory_format=layout)
    y = torch.randint(args.classes, (args.batch,))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(args.warm_up + args.n):
        start = time.perf_counter()
        loss = nn.functional.cross_entropy(model(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        seconds.append(time.perf_counter() - start)
    seconds = seconds[args.warm_up :]
    median = statistics.median(seconds)
    print(
        f"{args.model}, batch {args.batch}, {args.size}x{args.size}, {torch.get_num_threads()} threads: "
        f"median {median * 1e3:.1f} ms a step ({args.batch / median:.1f} images/s), "
        f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms over {args.n}"
    )


if __name__ == "__main__":
    main()
