#!/usr/bin/env python3
"""Makes the cases of preprocessing: what OpenCV and numpy compute for small artificial pictures.

    pip install opencv-python-headless numpy pillow
    python make.py [--seed 1] [--out DIR]

A case is a picture, NAME.png, with skin, blobs, hairs, a gradient of light and noise, all drawn here, and beside it

    NAME-lab.png      cvtColor RGB2LAB
    NAME-back.png     cvtColor LAB2RGB of that
    NAME-gray.png     cvtColor RGB2GRAY
    NAME-hat.png      black-hat of the gray picture, a cross of 17x17
    NAME-mask.png     where that is above 10
    NAME-filled.png   inpaint with that mask by Telea's method, radius 1
    NAME-filled5.png  the same with radius 5
    NAME-clahe.png    createCLAHE(2.0, (8, 8)) of the L of NAME-lab.png
    NAME-prep.png     hairs filled in, then CLAHE of L, back to RGB
    NAME-shades.png   shades of gray, norm 6 (numpy)

`cmyk.jpg` is a JPEG of six patches in CMYK, as Pillow writes it.

`colours.json` holds SHA-256 of the gray and the L of all 2^24 colours, red slowest and blue fastest, and the versions.
"""

import argparse
import hashlib
import json
import pathlib

import cv2
import numpy as np
from PIL import Image

# Name, width, height, hairs, levels of noise.
CASES = [
    ("even", 96, 72, 7, 2),
    ("odd", 75, 61, 9, 4),
    ("one-side", 64, 45, 3, 6),
    ("dense", 56, 40, 60, 0),
    ("tiny", 7, 5, 1, 20),
    ("pixel", 1, 1, 0, 0),
    ("narrow", 3, 50, 2, 10),
]
# Two rows of patches of 8x8 pixels: skin, nearly white, nearly black; red, green, blue.
PATCHES = np.array(
    [[(200, 120, 100), (250, 240, 235), (20, 10, 10)], [(255, 0, 0), (0, 255, 0), (0, 0, 255)]], dtype=np.uint8
)


def picture(rng, width, height, hairs, noise):
    """Skin with a lesion, in uneven light, with hairs."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.ones((height, width, 3)) * rng.uniform([190, 140, 120], [230, 180, 170])
    cx, cy, r = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6), min(width, height) * 0.3
    far = np.hypot(x - cx, (y - cy) * rng.uniform(0.8, 1.3)) / max(r, 1)
    inside = 1 / (1 + np.exp(6 * (far - 1)))
    image += inside[..., None] * (rng.uniform([80, 40, 30], [130, 90, 80]) - image)
    image *= (1 - 0.4 * (x / width * 0.6 + y / height * 0.4))[..., None]
    image = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    for _ in range(hairs):
        a, b = (tuple(int(v) for v in rng.uniform([-5, -5], [width + 5, height + 5])) for _ in range(2))
        colour = tuple(int(v) for v in rng.uniform([10, 10, 5], [70, 50, 40]))
        cv2.line(image, a, b, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    image = image.astype(np.int64) + rng.integers(-noise, noise + 1, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def clahe(level):
    return cv2.createCLAHE(2.0, (8, 8)).apply(level)


def shades(image):
    light = ((image / 255.0) ** 6).mean((0, 1)) ** (1 / 6)
    gain = np.linalg.norm(light) / (np.sqrt(3) * np.where(light > 0, light, 1))
    return np.clip(np.floor(image * np.where(light > 0, gain, 1) + 0.5), 0, 255).astype(np.uint8)


def results(image):
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    hat = cv2.morphologyEx(gray, cv2.MORPH_BLACKHAT, cv2.getStructuringElement(cv2.MORPH_CROSS, (17, 17)))
    mask = np.where(hat > 10, 255, 0).astype(np.uint8)
    filled = cv2.inpaint(image, mask, 1, cv2.INPAINT_TELEA)
    prep = cv2.cvtColor(filled, cv2.COLOR_RGB2LAB)
    prep[..., 0] = clahe(np.ascontiguousarray(prep[..., 0]))
    return {
        "lab": lab,
        "back": cv2.cvtColor(lab, cv2.COLOR_LAB2RGB),
        "gray": gray,
        "hat": hat,
        "mask": mask,
        "filled": filled,
        "filled5": cv2.inpaint(image, mask, 5, cv2.INPAINT_TELEA),
        "clahe": clahe(np.ascontiguousarray(lab[..., 0])),
        "prep": cv2.cvtColor(prep, cv2.COLOR_LAB2RGB),
        "shades": shades(image),
    }


def save(path, image):
    stored = image[..., ::-1] if image.ndim == 3 else image
    assert cv2.imwrite(str(path), stored, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    for name, *shape in CASES:
        image = picture(rng, *shape)
        save(args.out / f"{name}.png", image)
        for kind, result in results(image).items():
            save(args.out / f"{name}-{kind}.png", result)
    Image.fromarray(np.kron(PATCHES, np.ones((8, 8, 1), np.uint8))).convert("CMYK").save(args.out / "cmyk.jpg", quality=95)
    byte = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(byte, byte, byte, indexing="ij"), -1).reshape(4096, 4096, 3)
    digest = lambda levels: hashlib.sha256(np.ascontiguousarray(levels).tobytes()).hexdigest()
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)
    facts = {
        "opencv": cv2.__version__,
        "seed": args.seed,
        "gray": digest(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)),
        "lightness": digest(lab[..., 0]),
    }
    (args.out / "colours.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
