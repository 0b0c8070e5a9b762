"""What was found in pictures as one file for other programs.

========== ======================== ========================================================
format     file                     what
========== ======================== ========================================================
coco       ``results.coco.json``    images, and every region of the masks as an annotation:
                                    box, area, score (its peak) and its pixels as run lengths
                                    in COCO's compressed form, which pycocotools packs
parquet    ``results.parquet``      one row per picture: the columns of ``results.csv`` in
                                    their own types, with regions and reasons as lists
csv        ``results.csv``          the table that ``--save csv`` writes
========== ======================== ========================================================
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from zsad.errors import RequestError, shown
from zsad.inference.options import chosen
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction
from zsad.io.names import plain_path
from zsad.metrics.regions import EIGHT

FORMATS = ("coco", "csv", "parquet")
CATEGORY = "anomaly"
NO_REGIONS = "no pixel threshold: the maps of this method are not made into regions"


def formats(text: str | Sequence[str] | None, out: Path | str | None = None) -> tuple[str, ...]:
    """The formats of a comma-separated list.  Raises :class:`RequestError`, also where the package
    is missing that writes one."""
    if text is None:
        return ()
    names = chosen(text, "--to", "format, formats", FORMATS, out)
    if "coco" in names and importlib.util.find_spec("pycocotools") is None:
        raise RequestError("--to coco: needs the package pycocotools; `pip install 'zsad[coco]'`")
    return names


class CocoFile:
    """Collects pictures and their regions in COCO's format for detections and for ground truth."""

    name = "results.coco.json"

    def __init__(self) -> None:
        self._images: list[tuple[Path, dict[str, Any]]] = []
        self._annotations: list[dict[str, Any]] = []
        self._failed: list[dict[str, str]] = []
        self._made_by: Mapping[str, Any] = {}

    def put(self, found: Prediction, photo: Photo, row: Mapping[str, Any]) -> None:
        """Take one picture in.  ``row``: what the table says of it."""
        if found.error:
            self._failed.append({"file_name": shown(photo.path), "error": found.error})
            return
        self._made_by = self._made_by or found.made_by
        assert found.values is not None
        height, width = found.size or found.values.shape
        number = len(self._images) + 1
        own = {key: row[key] for key in ("image_score", "anomalous", "image_threshold", "note")}
        own["pixel_threshold"] = row["pixel_threshold"]
        image = {"id": number, "width": int(width), "height": int(height), **own}
        self._images.append((plain_path(photo.path), image))
        mask, whole = found.mask, found.anomaly_map
        if mask is not None and whole is not None:
            self._annotations += [
                {"id": len(self._annotations) + i, "image_id": number, "category_id": 1, **region}
                for i, region in enumerate(regions(mask, whole), start=1)
            ]

    def content(self) -> bytes:
        """The whole file.  Names of pictures are relative to the folder that all of them share."""
        folder = os.path.commonpath([path.parent for path, _ in self._images] or [Path.cwd()])
        limits = any(image["pixel_threshold"] is not None for _, image in self._images)
        document = {
            "info": {
                "description": "what zsad predict found; score: highest map value of a region",
                "folder": shown(folder),
                "note": "" if limits or not self._images else NO_REGIONS,
                "not_scored": self._failed,
                "made_by": dict(self._made_by),
            },
            "licenses": [],
            "images": [
                {**image, "file_name": shown(path.relative_to(folder).as_posix())}
                for path, image in self._images
            ],
            "annotations": self._annotations,
            "categories": [
                {
                    "id": 1,
                    "name": CATEGORY,
                    "supercategory": shown(self._made_by.get("class_name", "")),
                }
            ],
        }
        return (json.dumps(document, allow_nan=False) + "\n").encode()


class ParquetFile:
    """Collects one row per picture."""

    name = "results.parquet"

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._made_by: Mapping[str, Any] = {}

    def put(self, found: Prediction, photo: Photo, row: Mapping[str, Any]) -> None:
        """Take one picture in.  ``row``: what the table says of it."""
        self._made_by = self._made_by or found.made_by
        said = {} if found.error else found.to_dict()
        self._rows.append(
            {
                **row,
                **{key: shown(row.get(key) or "") for key in ("path", "note", "heat", "error")},
                "found": said.get("regions", []),
                "reasons": [
                    {key: asdict(e)[key] for key in ("text", "label", "similarity", "note")}
                    for e in ([] if found.error else found.explanations)
                ],
            }
        )

    def content(self) -> bytes:
        """The whole file; its metadata say what made it (``zsad``)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        real, text, whole = pa.float64(), pa.string(), pa.int64()
        region = pa.struct(
            {
                "box": pa.list_(whole),
                "contour": pa.list_(pa.list_(real)),
                "area": whole,
                "peak": real,
                "score": real,
            }
        )
        why = pa.struct({"text": text, "label": text, "similarity": real, "note": text})
        reals = ("image_score", "marked", "map_max", "image_threshold", "pixel_threshold")
        schema = pa.schema(
            {
                "path": text,
                "anomalous": pa.bool_(),
                **dict.fromkeys(reals, real),
                "regions": whole,
                "note": text,
                "heat": text,
                "error": text,
                "found": pa.list_(region),
                "reasons": pa.list_(why),
            },
            {"zsad": json.dumps(dict(self._made_by))},
        )
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self._rows, schema), buffer)
        return buffer.getvalue()


FILES: dict[str, type[CocoFile] | type[ParquetFile]] = {"coco": CocoFile, "parquet": ParquetFile}


def regions(mask: NDArray[np.bool_], values: NDArray[np.float32]) -> list[dict[str, Any]]:
    """All 8-connected regions of a mask [H, W], highest peak of ``values`` [H, W] first, with the
    keys of a COCO annotation."""
    from pycocotools import mask as coco

    height, width = mask.shape
    labels, _ = scipy.ndimage.label(mask, EIGHT)
    found = []
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        own = labels[rows, columns] == number
        left, top = int(columns.start), int(rows.start)
        counts = run_lengths(own, top, left, height, width)
        packed = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        found.append(
            {
                "bbox": [left, top, own.shape[1], own.shape[0]],
                "area": int(own.sum()),
                "score": float(values[rows, columns][own].max()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": packed["counts"].decode()},
            }
        )
    return sorted(found, key=lambda region: -region["score"])


def run_lengths(own: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> list[int]:
    """The run lengths, column by column and beginning with what is not marked, of a picture
    [height, width] in which only ``own`` [h, w] is marked, whose corner lies at (top, left)."""
    steps = np.diff(np.pad(own, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # [h + 1, w]
    columns, first = np.nonzero(steps.T == 1)  # by column, from the top
    last = np.nonzero(steps.T == -1)[1]
    begin, end = ((left + columns) * height + top + at for at in (first, last))
    apart = np.append(True, begin[1:] != end[:-1])  # else the run goes on in the next column
    begin, end = begin[apart], end[np.append(apart[1:], True)]
    borders = np.concatenate(([0], np.stack((begin, end), axis=1).ravel(), [height * width]))
    counts: list[int] = np.diff(borders).tolist()
    return counts if counts[-1] else counts[:-1]
