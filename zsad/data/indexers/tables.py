"""Layouts whose labels or splits are listed in a text file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zsad.data.indexers.base import (
    Indexing,
    NotThisLayout,
    find_folder,
    indexer,
    listed,
    posix,
    with_hold_out,
)
from zsad.errors import counted
from zsad.types import Sample


def _rows(path: Path, problems: list[str], **options: str) -> list[list[str]]:
    """Cells of a delimited text file without surrounding blanks; empty lines are left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file, **options)]  # type: ignore[arg-type]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path}: cannot be read ({error})")
        return []
    return [row for row in rows if any(row)]


@indexer("visa_csv")
def visa_csv(at: Indexing, *, split_files: Sequence[str] = ("split_csv/1cls.csv",)) -> list[Sample]:
    """VisA as distributed: ``<category>/Data/...`` and a split file at the root.

    Columns object, split, label, image, mask; the mask is empty for a normal image.
    """
    table = next((p for f in split_files if (p := at.root / f).is_file()), None)
    if table is None:
        raise NotThisLayout(f"{at.root / split_files[0]} is missing")
    rows = _rows(table, at.problems)
    column = {name: i for i, name in enumerate(rows[0])} if rows else {}
    absent = {"object", "split", "label", "image", "mask"} - set(column)
    if absent:
        at.problems.append(f"{table}: no column {', '.join(sorted(absent))} in its first line")
        return []
    samples: list[Sample] = []
    for number, row in enumerate(rows[1:], start=2):
        cell = {name: row[i] if i < len(row) else "" for name, i in column.items()}
        if cell["object"] not in at.spec.categories:
            continue
        split, label = cell["split"], int(cell["label"] != "normal")
        if split not in ("train", "test"):
            at.problems.append(f"{table}, line {number}: split '{split}' is not train or test")
            continue
        if label and not cell["mask"]:
            at.problems.append(f"{table}, line {number}: an anomalous image without a mask")
        samples.append(
            at.sample(
                str(at.root / posix(cell["image"])),
                label,
                cell["object"],
                mask=str(at.root / posix(cell["mask"])) if label and cell["mask"] else None,
                defect="anomaly" if label else "good",
                split="train" if split == "train" else "test",
            )
        )
    return samples


@indexer("dagm")
def dagm(
    at: Indexing, *, phases: Sequence[str] = ("Train", "Test"), balanced: bool = False
) -> list[Sample]:
    """``ClassN/{Train,Test}/*.PNG`` with ``Label/Labels.txt``.

    The first line is ``1``; then tab-separated index, label, image, 0, mask (``0`` for none).
    ``balanced``: both phases are test, and of the normal images the first in order are kept,
    as many as there are defective ones (which ones the authors of that preparation kept is not
    known).
    """
    samples: list[Sample] = []
    for category in at.spec.categories:
        home = find_folder(at.root, category)
        for phase in phases if home is not None else ():
            part = find_folder(home, phase) if home is not None else None
            labels = find_folder(part, "Label") if part is not None else None
            if part is None or labels is None or not (labels / "Labels.txt").is_file():
                at.problems.append(f"{category}/{phase}/Label/Labels.txt is missing")
                continue
            split: Literal["train", "test"]
            split = "test" if balanced or phase.lower() == "test" else "train"
            samples += _dagm_phase(at, part, labels, category, split)
    if not samples:
        raise NotThisLayout(f"{at.root}/Class1/Test/Label/Labels.txt is missing")
    if not balanced:
        return samples
    kept: list[Sample] = []
    for category in at.spec.categories:
        here = [s for s in samples if s.category == category]
        anomalous = [s for s in here if s.label]
        kept += anomalous + [s for s in here if not s.label][: len(anomalous)]
    return kept


def _dagm_phase(
    at: Indexing, part: Path, labels: Path, category: str, split: Literal["train", "test"]
) -> list[Sample]:
    table = labels / "Labels.txt"
    present = {Path(p).name.lower(): p for p in (*listed(part), *listed(labels))}
    samples: list[Sample] = []
    for number, row in enumerate(_rows(table, at.problems, delimiter="\t"), start=1):
        if len(row) < 5 or row[1] not in ("0", "1"):
            if number > 1:  # the first line holds a lone 1
                at.problems.append(f"{table}, line {number}: five tab-separated fields expected")
            continue
        label, image, mask = int(row[1]), row[2], row[4]
        if label and mask == "0":
            at.problems.append(f"{table}, line {number}: a defective image without a mask")
        samples.append(
            at.sample(
                present.get(image.lower(), str(part / image)),
                label,
                category,
                mask=present.get(mask.lower(), str(labels / mask))
                if label and mask != "0"
                else None,
                defect="defect" if label else "good",
                split=split,
            )
        )
    return samples


@indexer("elpv")
def elpv(
    at: Indexing,
    *,
    labels: str = "labels.csv",
    anomalous_from: float = 1.0,
    held_out: float = 0.25,
    seed: int = 42,
) -> list[Sample]:
    """``images/cellNNNN.png`` with a blank-separated label file: path, probability, type.

    Probability 0 is normal, ``anomalous_from`` and above is anomalous, what lies between is
    left out.  The normal cells are held out in the order of the file; 0 as ``held_out``
    makes all of them test images.
    """
    table = at.require(labels)
    normal: list[Sample] = []
    anomalous: list[Sample] = []
    dropped = 0
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            path, probability, kind = fields[0], float(fields[1]), fields[2]
        except (IndexError, ValueError):
            at.problems.append(f"{table}, line {number}: path, probability and type expected")
            continue
        image = str(at.root / posix(path))
        if probability < 1e-3:
            normal.append(at.sample(image, 0, at.only_category, defect=kind))
        elif probability > anomalous_from - 1e-3:
            anomalous.append(at.sample(image, 1, at.only_category, defect=kind))
        else:
            dropped += 1
    if dropped:
        at.notes.append(
            f"{counted(dropped, 'cell of uncertain label is', 'cells of uncertain label are')} "
            "left out"
        )
    return (with_hold_out(normal, held_out, seed) if held_out else normal) + anomalous


@indexer("labelled_csv")
def labelled_csv(
    at: Indexing,
    *,
    labels: str = "labels.csv",
    images: Sequence[str] = ("images",),
    name: str = "id",
    label: str = "label",
    padding: int = 0,
    ending: str = ".png",
) -> list[Sample]:
    """A folder of images and a table with a name and a 0/1 label for each.

    Header cells are stripped of blanks; ``padding`` zero-pads numeric names.
    """
    table = at.require(labels)
    folder = next((f for n in images if (f := at.root / n).is_dir() and listed(f)), None)
    if folder is None:
        at.problems.append(f"{table}: no folder {' or '.join(images)} with images beside it")
        return []
    rows = _rows(table, at.problems)
    header = rows[0] if rows else []
    if name not in header or label not in header:
        at.problems.append(f"{table}: its first line must name the columns {name} and {label}")
        return []
    samples: list[Sample] = []
    for number, row in enumerate(rows[1:], start=2):
        cell = dict(zip(header, row))
        if cell.get(label) not in ("0", "1"):
            at.problems.append(f"{table}, line {number}: label must be 0 or 1")
            continue
        file = folder / (cell[name].zfill(padding) + ending)
        value = int(cell[label])
        defect = "anomaly" if value else "good"
        samples.append(at.sample(str(file), value, at.only_category, defect=defect))
    named = {s.image for s in samples}
    surplus = [p for p in listed(folder) if p not in named]
    if surplus:
        at.problems.append(
            f"{table}: {counted(len(surplus), 'image is', 'images are')} not listed in it "
            f"(first: {Path(surplus[0]).name})"
        )
    return samples
