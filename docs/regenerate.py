"""Make again what README shows of the demo: its table, the heat maps, the picture of the report.

    make readme            # runs the demo first
    python -m docs.regenerate --results results/demo

Everything comes from the stored results of ``make demo``.  The picture of the report needs
Chromium (`make browser`); without it the old one stays.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from tests.report import browser
from zsad import report
from zsad.metrics.spec import headline
from zsad.report.pictures import colour_range
from zsad.results import examples, heatmaps
from zsad.results.examples import Example
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of
from zsad.tables.by_dataset import overview
from zsad.tables.results_matrix import Board, boards

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- measured by `make readme` -->", "<!-- end of measured -->"
FIGURES = tuple((m.full_title, m.name) for m in headline())
BEST_BY = FIGURES[-1][1]  # of the pixel level
METHOD = "faprompt"  # whose heat maps are shown
SHOWN = 4  # categories
SIDE = 168  # pixels of a picture
GAP = 6


def main() -> None:
    """Write the table and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results/demo", type=Path)
    results = parser.parse_args().results
    store = ResultStore(results)
    board = next(b for b in boards(store.cells()) if b.backbone == "zsad-tiny")
    readme = DOCS.parent / "README.md"
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), table(board)))
    heat_maps(store, board).save(DOCS / "demo_heat_maps.jpg", quality=82)
    if browser.find() is None:
        print(f"docs/demo_report.jpg stays as it is: {browser.MISSING}")
    else:
        picture_of_report(report.write(results)).save(DOCS / "demo_report.jpg", quality=64)


# -------------------------------------------------------------------------------- table
def replaced(text: str, block: str) -> str:
    """``text`` with ``block`` between the two marks.  Raises ``ValueError`` without them."""
    found = re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n{block}\n{END}",
        text,
        count=1,
        flags=re.S,
    )
    if BEGIN not in text or END not in text:
        raise ValueError(f"README.md has no '{BEGIN}' ... '{END}'")
    return found


def table(board: Board) -> str:
    """The demo's means as Markdown, with the conditions they were measured under."""
    values = {
        (e["row"], e["method"], e["metric"]): e["value"]
        for t in overview(board).tables
        for e in t.data
    }
    lines = [
        f"| dataset (categories) | figure | {' | '.join(c.title for c in board.columns)} |",
        "|---|---|" + "---:|" * len(board.columns),
    ]
    for row in board.rows:
        for name, metric in FIGURES:
            found = [values.get((row.name, c.label, metric)) for c in board.columns]
            if any(v is not None for v in found):
                cells = " | ".join("–" if v is None else f"{v:.1f}" for v in found)
                lines.append(f"| {row.title} ({len(row.categories)}) | {name} | {cells} |")
    return "\n".join([*lines, "", conditions(board)])


def conditions(board: Board) -> str:
    """One sentence on images, limit and size; how long it takes depends on the machine."""
    records = [r for cells in board.cells.values() for r in cells.values()]
    images = {(r.dataset, r.category): r.n_normal + r.n_anomalous for r in records}
    info = records[0].info
    text = f"Percent; `zsad-tiny` at {info['image_size']} pixels, {sum(images.values())} images"
    if info.get("limit"):
        text += f" (at most {info['limit']} per category)"
    return f"{text}."


# ----------------------------------------------------------------------------- heat maps
def heat_maps(store: ResultStore, board: Board) -> Image.Image:
    """The best find of the categories that the method does best on, without and with its heat
    map; the white line is the true defect."""
    shown = []
    for record in best_categories(board):
        found = examples.load(store.root, key_of(record))
        best = [e for e in found.examples if e.kind == "detected"] if found else []
        if found and best:
            shown.append((record, best[0], colour_range(found.examples)))
    sheet = Image.new("RGB", (len(shown) * (SIDE + GAP) - GAP, 2 * SIDE + GAP), "white")
    for i, (_, example, (low, high)) in enumerate(shown):
        left = i * (SIDE + GAP)
        picture = Image.open(io.BytesIO(example.jpeg)).convert("RGB")
        heat = outlined(heatmaps.overlay(picture, example.map, low, high), example)
        for top, image in ((0, picture), (SIDE + GAP, heat)):
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
    return sheet


def best_categories(board: Board) -> list[CellRecord]:
    """Records with masks, by the last of the headline's metrics, the best first."""
    records = [
        r for (label, _), cells in board.cells.items() if label == METHOD for r in cells.values()
    ]
    masked = [r for r in records if r.metrics.get(BEST_BY) is not None]
    return sorted(masked, key=lambda r: (-(r.metrics[BEST_BY] or 0), r.category))[:SHOWN]


def outlined(picture: Image.Image, example: Example) -> Image.Image:
    """The picture with the border of the example's mask."""
    return picture if example.mask is None else outline(picture, example.mask)


def outline(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Draw the border of a mask [H, W] of the picture's size on it; return the picture."""
    from skimage.measure import find_contours

    draw = ImageDraw.Draw(picture)
    for line in find_contours(mask.astype(float), 0.5):
        points = [(float(x), float(y)) for y, x in line]
        draw.line(points, fill="black", width=5)
        draw.line(points, fill="white", width=2)
    return picture


# -------------------------------------------------------------------------------- report
def picture_of_report(page: Path) -> Image.Image:
    """The desktop page's most telling parts beside the page on a phone."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with browser.Browser(place / "profile") as running:
            running.open(page, 1180, 900)
            parts = [
                opened(running.screenshot(place / f"{i}.png", selector=selector))
                for i, selector in enumerate(("#ranking", "#bars", "#examples .method:last-child"))
            ]
            running.open(page, 390, 844)
            running.value("document.querySelector('#pictures').scrollIntoView()")
            phone = opened(
                running.screenshot(place / "phone.png", top=running.value("Math.round(scrollY)"))
            )
    return beside(parts, ImageOps.expand(phone, 2, "#57606c"))


def beside(parts: list[Image.Image], phone: Image.Image) -> Image.Image:
    """The parts below each other, the phone at their right, with a margin."""
    width, height = max(p.width for p in parts), sum(p.height + 24 for p in parts) - 24
    phone = phone.resize((height * phone.width // phone.height, height))
    whole = Image.new("RGB", (width + 40 + phone.width, height), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + 24
    whole.paste(phone, (width + 40, 0))
    whole = ImageOps.expand(whole, 24, "white")
    whole.thumbnail((1280, 1280), Image.Resampling.LANCZOS)
    return whole


def opened(path: Path) -> Any:
    """A picture that no longer needs its file."""
    return Image.open(path).convert("RGB")


if __name__ == "__main__":
    main()
