"""Draws contact sheets of the generated dataset, to be looked at by a person.

    python -m zsad.benchmarks.tiny.contact_sheet --out docs/sheet.png [--group test]

One row per category: normal pictures, then one of each defect with its name, then its mask.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zsad.data.synthetic.generator import ANY_DEFECT, CATEGORIES, FAMILIES, Kind, draw

SIDE, BAR = 150, 16  # pixels


def cell(picture: np.ndarray, caption: str) -> Image.Image:
    """One picture with a line of text below it."""
    out = Image.new("RGB", (SIDE + 4, SIDE + BAR + 4), "white")
    out.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (2, 2))
    ImageDraw.Draw(out).text((4, SIDE + 4), caption, fill=(30, 30, 30))
    return out


def row(kind: Kind, seed: int, normals: int, anomalies: int) -> list[Image.Image]:
    cells = [
        cell(
            draw(kind, seed=seed, split="sheet", index=i, label=0).image,
            f"{kind.class_name}: normal",
        )
        for i in range(normals)
    ]
    names = list(kind.defects)
    if kind.key in FAMILIES:  # the free defect, and what their makers build in
        names = [ANY_DEFECT, *(kind.structural or (ANY_DEFECT,))] * anomalies
    for i in range(anomalies):
        made = draw(kind, seed=seed, split="sheet", index=i, label=1, defect=names[i % len(names)])
        cells.append(cell(made.image, made.defect))
        if i < 2:
            cells.append(
                cell(np.repeat(made.mask[..., None], 3, 2).astype(np.uint8) * 255, "its mask")
            )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--group", choices=("test", "train", "all", "families"), default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--normals", type=int, default=2)
    parser.add_argument("--anomalies", type=int, default=6)
    args = parser.parse_args()
    kinds = list(FAMILIES.values()) if args.group == "families" else list(CATEGORIES.values())
    if args.group in ("test", "train"):
        kinds = [k for k in kinds if k.group == args.group]
    rows = [row(k, args.seed, args.normals, args.anomalies) for k in kinds]
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    for y, cells in enumerate(rows):
        for x, picture in enumerate(cells):
            sheet.paste(picture, (x * width, y * height))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(255, method=Image.Quantize.MEDIANCUT).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
