"""Draws the validation curve of a training run.

python -m zsad.benchmarks.tiny.curve RUN/curve.csv benchmarks/tiny/curve.png
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from PIL import Image, ImageDraw

LINES = {  # column: (what it shows, colour)
    "seen_image": ("seen: image", (150, 180, 230)),
    "heldout_image": ("held out: image", (30, 80, 170)),
    "seen_pixel probe": ("seen: patches", (235, 190, 140)),
    "heldout_pixel probe": ("held out: patches", (200, 100, 20)),
    "heldout_pixel text": ("held out: patches\nread with a prompt", (150, 150, 150)),
}
WIDTH, HEIGHT, EDGE = 720, 420, 50


def plot(rows: list[dict[str, str]]) -> Image.Image:
    """AUROC, from the tenth below the lowest value to 1, over minutes of training."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    end = max(float(r["minutes"]) for r in rows)
    tenths = int(10 * min(float(r[name]) for r in rows for name in LINES))
    low = tenths / 10

    def at(minutes: float, value: float) -> tuple[float, float]:
        x = EDGE + minutes / end * (WIDTH - EDGE - 160)
        return x, HEIGHT - EDGE - (value - low) / (1 - low) * (HEIGHT - 2 * EDGE)

    for tenth in range(tenths, 11):
        draw.line([at(0, tenth / 10), at(end, tenth / 10)], fill=(225, 225, 225))
        draw.text((EDGE - 30, at(0, tenth / 10)[1] - 6), f"{tenth / 10:.1f}", fill=(60, 60, 60))
    for minute in range(0, int(end) + 1, 10):
        draw.text((at(minute, low)[0] - 6, HEIGHT - EDGE + 6), str(minute), fill=(60, 60, 60))
    draw.text((EDGE, HEIGHT - 22), "minutes of training", fill=(60, 60, 60))
    draw.text((EDGE, 14), "AUROC on validation pictures (seed 900)", fill=(30, 30, 30))
    for k, (name, (label, colour)) in enumerate(LINES.items()):
        points = [at(float(r["minutes"]), float(r[name])) for r in rows]
        draw.line(points, fill=colour, width=3)
        draw.text((WIDTH - 150, EDGE + 18 * k), label, fill=colour)
    return picture


def main() -> None:
    source, target = (Path(a) for a in sys.argv[1:3])
    with source.open(encoding="utf-8") as file:
        plot(list(csv.DictReader(file))).save(target)


if __name__ == "__main__":
    main()
