"""Boxes around the regions of masks in COCO's format, to fine-tune a detector on a dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage

from zsad.data import splits
from zsad.data.images import image_size, read_mask
from zsad.data.index import DatasetIndex
from zsad.errors import DataError, counted
from zsad.io.names import in_words
from zsad.metrics.regions import EIGHT
from zsad.types import Sample

UNNAMED = "anomaly"  # of a defect whose type the dataset does not name
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class BoxTable:
    """``document``: COCO's ``images``, ``annotations`` and ``categories``; ``left_out``: anomalous
    pictures without a marked pixel, which would teach a detector that they are normal."""

    document: dict[str, Any]
    left_out: tuple[str, ...]

    def lines(self) -> list[str]:
        """What is in the table, in words."""
        held = self.document
        empty = len(held["images"]) - len({a["image_id"] for a in held["annotations"]})
        names = ", ".join(c["name"] for c in held["categories"])
        boxes = counted(len(held["annotations"]), "box", "boxes")
        lines = [
            f"{boxes} on {counted(len(held['images']), 'picture')}, {empty} of them "
            f"normal; phrases: {names}"
        ]
        if self.left_out:
            more = ", ..." if len(self.left_out) > 3 else ""
            lines.append(
                f"left out: {counted(len(self.left_out), 'anomalous picture')} without a mask, "
                "or whose mask "
                f"marks nothing ({', '.join(self.left_out[:3])}{more})"
            )
        return lines


def boxes_of(mask: np.ndarray) -> list[tuple[Box, int]]:
    """(left, top, width, height) in pixels around each 8-connected region of a mask [H, W], and
    the number of its pixels; in raster order."""
    labels, _ = scipy.ndimage.label(mask, EIGHT)
    areas = np.bincount(labels.ravel())[1:].tolist()
    found = []
    for area, (rows, columns) in zip(areas, scipy.ndimage.find_objects(labels)):
        size = (columns.stop - columns.start, rows.stop - rows.start)
        found.append(((columns.start, rows.start, *size), area))
    return found


def table(index: DatasetIndex) -> BoxTable:
    """The boxes of the labelled part of a dataset: what trained methods learn from.

    File names are relative to the dataset's folder; a detector's phrase is the type of defect.
    Raises :class:`DataError` for a dataset without masks or of pictures that are not files.
    """
    samples = splits.auxiliary(index, "test")
    if any("://" in s.image for s in samples) or index.root is None:
        raise DataError(
            f"dataset {index.spec.name}: its pictures are generated, not files; give one on disk"
        )
    phrases = sorted({_phrase(s) for s in samples if s.label})
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    left_out = []
    for sample in samples:
        found = boxes_of(read_mask(sample)) if sample.label and sample.mask else []
        if sample.label and not found:
            left_out.append(sample.uid)
            continue
        name = Path(os.path.relpath(sample.image, index.root)).as_posix()
        if name not in images:
            height, width = image_size(sample.image)
            at = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
            images[name] = at
        right, down = sample.crop[:2] if sample.crop else (0, 0)
        annotations += [
            {
                "id": len(annotations) + i,
                "image_id": images[name]["id"],
                "category_id": phrases.index(_phrase(sample)) + 1,
                "bbox": [left + right, top + down, width, height],
                "area": area,
                "iscrowd": 0,
            }
            for i, ((left, top, width, height), area) in enumerate(found, start=1)
        ]
    if not annotations:
        raise DataError(f"dataset {index.spec.name}: no mask marks anything, so there are no boxes")
    document = {
        "info": {"description": f"regions of the masks of {index.spec.name}, {index.variant}"},
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": i, "name": p} for i, p in enumerate(phrases, start=1)],
    }
    return BoxTable(document, tuple(left_out))


def _phrase(sample: Sample) -> str:
    return in_words(sample.defect) or UNNAMED
