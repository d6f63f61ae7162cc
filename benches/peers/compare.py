#!/usr/bin/env python3
"""Times lesion-gpu and its peers on the same work, in alternating rounds, and prints one table.

    cargo build --release
    python3 benches/peers/compare.py --model resnet18 --model resnet50 --batch 8 --size 128 --threads 2 \\
        --python /path/to/a/python/with/torch --out benches/results/NAME.md

In each round every contender runs once, one after the other, each in a process of its own; so what else the machine
does meanwhile hits all of them alike. A contender's time is the median over the rounds of the medians of its runs, and
the spread is that of those medians. The ratio is its time by ours: above 1, we are faster. `--ours f32 --ours mixed` times
ours in both precisions.

Needs Python 3.9 and nothing else itself; PyTorch is run with --python, burn with --burn. `--mode none` leaves PyTorch out.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "benches" / "peers"


def run(command, timeout):
    """Standard output of a command, or None and why not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        return None, f"{command[0]} does not exist"
    except subprocess.TimeoutExpired:
        return None, f"took longer than {timeout} s"
    if done.returncode != 0:
        lines = (done.stderr or "").strip().splitlines()
        return None, f"exit code {done.returncode}: {lines[-1] if lines else ''}"
    return done.stdout, None


class Contender:
    """One program in one mode on one piece of work: the command, and what its runs gave."""

    def __init__(self, name, command, read):
        self.name, self.command, self.read = name, command, read
        self.medians, self.device, self.note, self.extra = [], "", None, {}

    def round(self, timeout):
        if self.note:
            return
        out, problem = run(self.command, timeout)
        if problem is None:
            try:
                result = self.read(out)
            except (ValueError, KeyError, IndexError) as e:
                problem = f"printed something unexpected: {e!r}"
        if problem is not None or "skipped" in result:
            self.note = problem or result["skipped"]
            return
        self.medians.append(statistics.median(result["seconds"]))
        self.device, self.extra = result["device"], result

    def median(self):
        return statistics.median(self.medians) if self.medians else None


def read_ours(out):
    report = json.loads(out)
    device = report["device"]
    return {
        "seconds": report["step"]["seconds"],
        "device": f"{device['name']} ({device['class']}, {device['driver']})",
        "flops_share": report["step"]["flops_share"],
        "flops_per_second": report["step"]["flops_per_second"],
        "limit": report["step"]["flops_ceiling"],
        "ceiling": report["ceilings"][report["step"]["flops_ceiling"] + "_flops"],
        "copy": report["ceilings"]["copy_bytes"],
    }


def read_last_line(out):
    return json.loads(out.strip().splitlines()[-1])


def contenders(args, model, infer):
    """All contenders for one piece of work, ours first."""
    work = ["--model", model, "--batch", str(args.batch), "--size", str(args.size)] + ["--infer"] * infer
    found = []
    for precision in args.ours:
        ours = [args.lesion_gpu, "bench", *work, "--steps", str(args.steps), "--precision", precision, "--json", "-"]
        ours += ["--adapter", args.adapter] * bool(args.adapter)
        found.append(Contender(f"lesion-gpu, {precision}", ours, read_ours))
    for mode in (mode for mode in args.mode if mode != "none"):
        command = [args.python, str(HERE / "pytorch.py"), *work, "--mode", mode, "--steps", str(args.steps)]
        command += ["--device", args.device] * bool(args.device)
        command += ["--threads", str(args.threads)] * bool(args.threads)
        found.append(Contender(f"PyTorch, {mode}", command, read_last_line))
    if args.burn and not model.startswith("unet"):
        found.append(Contender("burn, Vulkan", [args.burn, *work, "--steps", str(args.steps)], read_last_line))
    return found


def machine():
    """The processor, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        cores = os.cpu_count()
    return f"{name}, {cores} cores"


def commit():
    out, _ = run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], 10)
    changed, _ = run(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"], 10)
    return "unknown" if out is None else out.strip() + (" with changes" if changed and changed.strip() else "")


def load():
    try:
        return f"{os.getloadavg()[0]:.1f}"
    except (OSError, AttributeError):
        return "unknown"


def table(args, found):
    """Rows of contenders, with a ratio for each of ours."""
    ours = found[: len(args.ours)]
    ratios = [f"time by ours{', ' + precision if len(ours) > 1 else ''}" for precision in args.ours]
    lines = [f"| contender | ms a step | spread | images/s | {' | '.join(ratios)} | device |"]
    lines.append("|---" * (5 + len(ours)) + "|")
    for c in found:
        if not c.medians:
            lines.append(f"| {c.name} | not timed: {c.note or 'no round was finished'} |" + " |" * (3 + len(ours)))
            continue
        ms, low, high = 1e3 * c.median(), 1e3 * min(c.medians), 1e3 * max(c.medians)
        by = " | ".join(f"{c.median() / o.median():.2f}" if o.medians else "" for o in ours)
        lines.append(f"| {c.name} | {ms:.1f} | {low:.1f} to {high:.1f} | {args.batch / c.median():.1f} | {by} | {c.device} |")
    return lines


def sentences(ours):
    """What ours reached, for each precision."""
    for c in (c for c in ours if c.medians):
        o = c.extra
        what = "multiply-adds in registers" if o["limit"] == "f32" else "cooperative matrices"
        yield (
            f"{c.name}: {o['flops_per_second'] / 1e9:.1f} GFLOP/s in the last round, {100 * o['flops_share']:.0f} % of the "
            f"{o['ceiling'] / 1e9:.1f} GFLOP/s that {what} reach on this driver; a copy reaches {o['copy'] / 1e9:.1f} GB/s."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; default: resnet18")
    parser.add_argument("--task", action="append", choices=["train", "infer"], help="default: both")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="append", choices=["f32", "mixed"], help="our precisions; default: f32")
    parser.add_argument("--mode", action="append", help="modes of PyTorch; default: eager and channels_last")
    parser.add_argument("--burn", help="the program that `cargo build --release` makes in benches/peers/burn")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU")
    parser.add_argument("--device", help="of PyTorch: cpu, cuda")
    parser.add_argument("--adapter", help="of lesion-gpu: as its own --adapter")
    parser.add_argument("--lesion-gpu", default=str(ROOT / "target" / "release" / "lesion-gpu"))
    parser.add_argument("--python", default=sys.executable, help="a Python with torch and torchvision")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one run of one contender")
    parser.add_argument("--note", help="a sentence for the results, such as what else the machine did")
    parser.add_argument("--out", type=pathlib.Path, help="write Markdown to this file")
    args = parser.parse_args()
    args.mode, args.ours = args.mode or ["eager", "channels_last"], args.ours or ["f32"]
    if min(args.batch, args.size, args.steps, args.rounds) < 1:
        parser.error("--batch, --size, --steps and --rounds must be at least 1")
    # On cores that others use too, OpenMP threads that spin while they wait slow PyTorch down twentyfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    before, begun = load(), datetime.datetime.now(datetime.timezone.utc)
    sections, missing = [], False
    for model in args.model or ["resnet18"]:
        for task in args.task or ["train", "infer"]:
            found = contenders(args, model, task == "infer")
            if not pathlib.Path(args.lesion_gpu).is_file():
                parser.error(f"{args.lesion_gpu} does not exist: cargo build --release")
            for number in range(args.rounds):
                for c in found:
                    print(f"{model} {task}, round {number + 1} of {args.rounds}: {c.name}", file=sys.stderr, flush=True)
                    c.round(args.timeout)
            missing |= not all(c.medians for c in found[: len(args.ours)])
            what = "training step" if task == "train" else "inference"
            lines = [f"## {model}, {what}, batch {args.batch}, {args.size}x{args.size}", "", *table(args, found)]
            for sentence in sentences(found[: len(args.ours)]):
                lines += ["", sentence]
            print("\n".join(["", *lines]), flush=True)
            sections.append("\n".join(lines))
    # Paths of this machine mean nothing elsewhere.
    shown = ["python3", "benches/peers/compare.py"]
    words = iter(sys.argv[1:])
    for word in words:
        if word in ("--out", "--note", "--python", "--lesion-gpu", "--burn"):
            next(words, None)
        elif not word.startswith(("--out=", "--note=", "--python=", "--lesion-gpu=", "--burn=")):
            shown.append(word)
    head = [
        f"# lesion-gpu and its peers: {platform.system()}, {machine()}",
        "",
        f"Date: {begun:%Y-%m-%d}. Commit: {commit()}. Load average at the start {before}, at the end {load()}.",
        *([args.note] if args.note else []),
        "",
        f"    {' '.join(shown)}",
        "",
        f"Median over {args.rounds} alternating rounds of the median of {args.steps} steps; the spread is that of the "
        "rounds' medians.",
        "A training step is forward, loss (cross-entropy; for a U-Net binary cross-entropy and Dice), backward and Adam. Ours uploads and augments its pictures in every "
        "training step, the peers' pictures lie on the device, and burn's program waits for every step. OMP_WAIT_POLICY was "
        f"{os.environ['OMP_WAIT_POLICY']} for PyTorch.",
    ]
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(head) + "\n\n" + "\n\n".join(sections) + "\n")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
