#!/usr/bin/env python3
"""Times a training step (forward, loss, backward, Adam) or an inference of a torchvision classifier or a U-Net in PyTorch.

    pip install torch torchvision
    python benches/peers/pytorch.py --model resnet18 --batch 8 --size 128 --threads 2
    python benches/peers/pytorch.py --model resnet50 --infer --mode compile --device cuda

A classifier's loss is cross-entropy; a U-Net's (`unet`, `unet-small`) that of binary cross-entropy and Dice of each picture.
The images stay on the device in either case. Prints one line of JSON for each mode. A mode that this device or this
installation cannot run is named with the reason, and is no failure.

Modes:
  eager          f32, TF32 off
  channels_last  eager, activations and weights in NHWC order
  tf32           channels_last, with TF32 matrix units (CUDA)
  amp            channels_last under autocast: f16 with a gradient scaler on CUDA, bf16 on a CPU
  compile        channels_last through torch.compile, TF32 off
  compile_amp    both of the last two
"""

import argparse
import json
import math
import time

import torch
import torchvision
from torch import nn

MODES = ["eager", "channels_last", "tf32", "amp", "compile", "compile_amp"]


def device_name(device):
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"CPU, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def unsupported(mode, device):
    """Why the mode makes no sense on the device, if so."""
    if mode == "tf32" and device.type != "cuda":
        return "TF32 exists on CUDA devices only"
    if mode == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no TF32"
    return None


class Double(nn.Sequential):
    """Twice a 3x3 convolution, batch-norm and ReLU."""

    def __init__(self, channels, filters, bias):
        layers = []
        for c in (channels, filters):
            layers += [nn.Conv2d(c, filters, 3, padding=1, bias=bias), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Four levels of `width` to 8 * `width` filters and a bottleneck, as src/models/unet.rs."""

    def __init__(self, width, up, bias, dropout):
        super().__init__()
        widths = [width << level for level in range(5)]
        self.encoders = nn.ModuleList(Double(c, f, bias) for c, f in zip([3, *widths], widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * f, f, up, stride=2) for f in widths[:4])
        self.decoders = nn.ModuleList(Double(2 * f, f, bias) for f in widths[:4])
        self.pool, self.dropout, self.head = nn.MaxPool2d(2), nn.Dropout(dropout), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        skips = []
        for encoder in self.encoders[:4]:
            skips.append(encoder(x))
            x = self.dropout(self.pool(skips[-1]))
        x = self.encoders[4](x)
        for skip, up, decoder in list(zip(skips, self.ups, self.decoders))[::-1]:
            x = up(x)[:, :, : skip.shape[2], : skip.shape[3]]
            x = decoder(self.dropout(torch.cat([x, skip], 1)))
        return self.head(x)


UNETS = {"unet": (64, 2, False, 0.0), "unet-small": (16, 3, True, 0.1)}


def bce_dice(logits, masks):
    """Binary cross-entropy and one minus Dice of each picture."""
    p = torch.sigmoid(logits.float())
    overlap, all_of = (p * masks).sum((1, 2, 3)), (p + masks).sum((1, 2, 3))
    dice = (1 - (2 * overlap + 1) / (all_of + 1)).mean()
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), masks) + dice


class Step:
    """One step of one mode; `run` leaves its result in `self.result`."""

    def __init__(self, args, mode, device):
        tf32 = mode == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        # Shapes do not change, so let cuDNN choose by measuring.
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(1)
        layout = torch.contiguous_format if mode == "eager" else torch.channels_last
        if args.model in UNETS:
            model, self.loss = UNet(*UNETS[args.model]), bce_dice
            self.y = (torch.rand(args.batch, 1, args.size, args.size) > 0.5).float().to(device, memory_format=layout)
        else:
            model = torchvision.models.get_model(args.model, weights=None, num_classes=args.classes)
            self.y, self.loss = torch.arange(args.batch, device=device) % args.classes, nn.functional.cross_entropy
        model = model.train(not args.infer).to(device, memory_format=layout)
        self.x = torch.rand(args.batch, 3, args.size, args.size).to(device, memory_format=layout)
        self.infer = args.infer
        self.amp = mode in ("amp", "compile_amp")
        self.device = device
        self.half = torch.float16 if device.type == "cuda" else torch.bfloat16
        self.scaler = torch.amp.GradScaler(enabled=self.amp and device.type == "cuda" and not args.infer)
        self.adam = None if args.infer else torch.optim.Adam(model.parameters(), lr=1e-3)
        self.model = torch.compile(model) if mode.startswith("compile") else model
        self.result = None

    def run(self):
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.amp):
            if self.infer:
                with torch.inference_mode():
                    self.result = self.model(self.x)
                return
            loss = self.loss(self.model(self.x), self.y)
        self.adam.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adam)
        self.scaler.update()
        self.result = loss.detach()


def measure(args, mode, device):
    """Seconds to the first result, seconds of each timed step, bytes at the peak (CUDA)."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    step = Step(args, mode, device)
    step.run()
    step.result.cpu()
    ready = time.perf_counter() - start
    for _ in range(args.warm_up):
        step.run()
    if cuda:
        # Steps follow each other without a wait in between, as in training; events mark their ends on the device.
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(args.steps + 1)]
        torch.cuda.synchronize(device)
        marks[0].record()
        for mark in marks[1:]:
            step.run()
            mark.record()
        torch.cuda.synchronize(device)
        seconds = [a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:])]
    else:
        seconds = []
        for _ in range(args.steps):
            start = time.perf_counter()
            step.run()
            seconds.append(time.perf_counter() - start)
    if not math.isfinite(step.result.float().sum().item()):
        raise ArithmeticError("the last step computed numbers that are not finite")
    return ready, seconds, torch.cuda.max_memory_allocated(device) if cuda else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="unet, unet-small or any classifier of torchvision.models")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--infer", action="store_true", help="inference instead of a training step")
    parser.add_argument("--mode", action="append", choices=MODES, help="may be repeated; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--threads", type=int, help="on a CPU; default: PyTorch's")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    args = parser.parse_args()
    if min(args.batch, args.size, args.classes, args.steps) < 1 or args.warm_up < 0:
        parser.error("--batch, --size, --classes and --steps must be at least 1, --warm-up at least 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    for mode in args.mode or MODES:
        line = {
            "peer": "PyTorch",
            "version": torch.__version__,
            "mode": mode,
            "model": args.model,
            "task": "infer" if args.infer else "train",
            "batch": args.batch,
            "size": args.size,
            "device": device_name(device),
        }
        reason = unsupported(mode, device)
        if reason is None:
            try:
                line["ready"], line["seconds"], line["peak_bytes"] = measure(args, mode, device)
            # Whatever a mode fails with, the others are still worth their time.
            except Exception as e:  # noqa: BLE001
                reason = f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"
        if reason is not None:
            line["skipped"] = reason
        print(json.dumps(line), flush=True)
        if hasattr(torch, "compiler"):
            torch.compiler.reset()


if __name__ == "__main__":
    main()
