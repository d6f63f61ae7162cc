#!/usr/bin/env python3
"""Watches `lesion-gpu train --tui` on a terminal of its own.

    scripts/oracle/check_screen.py target/debug/lesion-gpu [--show]

A small training on generated pictures is run to its end, stopped with q, with Ctrl-C and with SIGTERM, left at once with two of each,
resized, and left alone by its terminal; each time the terminal must be as it was before: the screen given back, the modes of the line restored, the exit code right.
--show prints what the screen showed. Linux; needs pyte.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time

import pyte

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program")
parser.add_argument("--show", action="store_true")
args = parser.parse_args()
program = os.path.abspath(args.program)
folder = tempfile.mkdtemp()


def size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def watch(name, flags, actions, code, environment=None):
    """Runs a training. Each of `actions` is done once the words before it are on the screen."""
    ours, theirs = pty.openpty()
    rows, columns = 36, 120
    size(ours, rows, columns)
    modes = termios.tcgetattr(theirs)
    command = [program, "train", "--tui", "--no-report", "--no-cache", *flags]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
                               env={**os.environ, **(environment or {})})
    screen = pyte.Screen(columns, rows)
    stream, raw, actions = pyte.ByteStream(screen), b"", list(actions)
    limit = time.time() + 300
    while time.time() < limit:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if ready:
            data = os.read(ours, 65536)
            raw += data
            stream.feed(data)
        elif process.poll() is not None:
            break
        shown = "\n".join(line.rstrip() for line in screen.display)
        if actions and actions[0][0] in shown:
            action = actions.pop(0)[1]
            if args.show:
                print(f"--- {name}, before {action}\n{shown}")
            if isinstance(action, bytes):
                os.write(ours, action)
            elif isinstance(action, tuple):
                size(ours, *action)
                screen.resize(*action)
                process.send_signal(signal.SIGWINCH)
            else:
                process.send_signal(action)
    assert not actions, (name, actions, screen.display)
    assert process.wait(10) == code, (name, process.returncode, raw[-2000:])
    assert raw.count(b"\x1b[?1049h") == raw.count(b"\x1b[?1049l") == 1, name
    assert termios.tcgetattr(theirs) == modes, f"{name}: the terminal's modes are others"
    behind = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw[raw.index(b"\x1b[?1049l"):].decode(errors="replace"))
    if "--resume" not in flags and (code == 0 or "resume" in behind):
        assert "epoch   1 |" in behind, (name, behind)
    os.close(ours)
    os.close(theirs)
    print(f"{name}: as it should be")
    return raw, behind


small = ["--data", "synthetic:160", "--model", "simple-cnn", "--size", "32", "--batch", "16"]
forever = [*small, "--epochs", "100000"]
_, behind = watch("to its end", [*small, "--epochs", "2", "--run", "whole"], [], 0)
assert "test images" in behind
for name, once in [("q", b"q"), ("ctrl-c", b"\x03"), ("sigterm", signal.SIGTERM)]:
    _, behind = watch(name, [*forever, "--run", name], [("epoch   2 |", once)], 130)
    assert f"--resume {name}" in behind, behind
    watch(f"{name}, twice", [*forever, "--run", f"{name}-2"], [("epoch   2 |", once), ("epoch", once)], 130)
watch("resumed", ["--resume", "q"], [("val balanced-accuracy", b"q")], 130)
watch("resized", [*forever, "--run", "resized"],
      [("epoch   2 |", (24, 80)), ("Tab other chart", b"\t"), (" scores ", (8, 30)), ("loss", (36, 120)), ("epoch   3 |", b"q")], 130)
# The terminal goes away: the run is saved, and the program ends.
for name in ["closed", "closed, without a signal"]:
    ours, theirs = pty.openpty()
    size(ours, 36, 120)
    run = name.replace(", ", "-").replace(" ", "-")
    command = [program, "train", "--tui", "--no-report", "--no-cache", *forever, "--run", run]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True)
    os.close(theirs)
    steps = os.path.join(folder, run, "steps.csv")
    while not os.path.exists(steps) or len(open(steps).readlines()) < 20:
        select.select([ours], [], [], 0.1)[0] and os.read(ours, 65536)
    os.close(ours)
    if name == "closed":
        process.send_signal(signal.SIGHUP)
    code = process.wait(60)
    assert code == 130, (name, code)
    assert not os.path.exists(os.path.join(folder, run, "training.lock")), name
    print(f"{name}: as it should be")
raw, _ = watch("without colours", [*forever, "--run", "plain"], [("epoch   2 |", b"q")], 130, {"NO_COLOR": "1"})
colours = re.findall(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-79]|4[0-79]|38|48)(?:;[0-9;]*)?m", raw)
assert not [c for c in colours if c not in (b"\x1b[39m", b"\x1b[49m", b"\x1b[39;49m")], set(colours)
