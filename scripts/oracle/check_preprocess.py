#!/usr/bin/env python3
"""Compares the preprocessing of real pictures with OpenCV's, step by step.

    scripts/oracle/check_preprocess.py DATA [--binary target/release/lesion-gpu] [--count 80] [--size 224] [--seed 42]

`lesion-gpu data preview` draws a sheet of pictures of DATA as they are (resized) and after hair removal, CLAHE and shades of
gray. Each cell is compared with what OpenCV (shades of gray: numpy) makes of the cell before it, and the last two with what it
makes of the first. Prints a row a step: largest and mean difference of a byte, and the share of bytes that are equal. Fails
above the tolerances. Needs numpy and opencv-python-headless.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import cv2
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tests/preprocess"))
from make import clahe, shades

GAP = 4
COLUMNS = ["original", "hair", "clahe", "shades-of-gray"]
# The largest difference of a byte, and the share of bytes that must be equal. Where a or b of LAB is rounded the other way, a
# byte of RGB is up to three apart.
TOLERANCE = {"hair": (1, 0.999), "clahe": (3, 0.999), "hair and clahe": (3, 0.999), "shades-of-gray": (1, 0.999)}


def cells(sheet, size):
    """The pictures of a sheet, row by row."""
    step = size + GAP
    rows = (sheet.shape[0] - GAP) // step
    columns = (sheet.shape[1] - GAP) // step
    at = lambda place: slice(GAP + place * step, (place + 1) * step)
    return [[np.ascontiguousarray(sheet[at(row), at(column)]) for column in range(columns)] for row in range(rows)]


def without_hair(image):
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    hat = cv2.morphologyEx(gray, cv2.MORPH_BLACKHAT, cv2.getStructuringElement(cv2.MORPH_CROSS, (17, 17)))
    return cv2.inpaint(image, (hat > 10).astype(np.uint8) * 255, 1, cv2.INPAINT_TELEA)


def equalised(image):
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = clahe(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--binary", default="target/release/lesion-gpu")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "sheet.png"
        drawn = ["--count", args.count, "--size", args.size, "--seed", args.seed, "--out", file]
        command = [args.binary, "data", "preview", args.data, "--preprocess", ",".join(COLUMNS[1:]), *drawn]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        sheet = cv2.imread(str(file))[..., ::-1]
    pairs = {step: [] for step in TOLERANCE}
    for original, hair, equal, shaded in cells(sheet, args.size):
        pairs["hair"].append((hair, without_hair(original)))
        pairs["clahe"].append((equal, equalised(hair)))
        pairs["hair and clahe"].append((equal, equalised(without_hair(original))))
        pairs["shades-of-gray"].append((shaded, shades(equal)))
    print(f"{len(pairs['hair'])} pictures, OpenCV {cv2.__version__}")
    failed = False
    for step, (most, share) in TOLERANCE.items():
        ours, theirs = (np.stack(side).astype(np.int16) for side in zip(*pairs[step]))
        far = np.abs(ours - theirs)
        print(f"{step:16} largest {far.max():3} mean {far.mean():.6f} equal {(far == 0).mean():.6f}")
        failed |= far.max() > most or (far == 0).mean() < share
    if failed:
        raise SystemExit("above the tolerances")


if __name__ == "__main__":
    main()
