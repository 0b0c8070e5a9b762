"""COCO annotations: polygons, run lengths and boxes become masks when they are read."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from zsad.data.images import register_reader
from zsad.data.indexers.base import Indexing, NotThisLayout, indexer
from zsad.data.indexers.lists import Resolver, check_listed, listed_account, strays_problem
from zsad.data.indexers.words import kind_of
from zsad.errors import DataError
from zsad.io import read_json, sha256_file
from zsad.io.bounds import PICTURE
from zsad.types import Sample

SCHEME = "coco"
Instances = dict[str, tuple[tuple[int, int], list[dict[str, Any]]]]  # id -> (height, width), marks


@indexer("coco")
def coco(
    at: Indexing,
    *,
    annotations: str = "annotations.json",
    images: str = "",
    normal: Sequence[str] = (),
    split: Literal["train", "test"] = "test",
    ignore: Sequence[str] = (),
) -> list[Sample]:
    """A COCO file: an image with annotations is anomalous, one without is normal.

    The marks of all annotations of an image are united: ``segmentation`` as polygons or run
    lengths, or else ``bbox``.  ``images``: the folder that file names are relative to.  ``normal``:
    annotation categories that mark no defect, beside those that are called good or ok.  Where the
    definition has several categories, the folder that an image lies in names its category.
    ``ignore``: patterns of pictures that are not listed and left out.
    """
    path = at.root / annotations
    if not path.is_file():
        raise NotThisLayout(f"{path} is missing")
    try:
        content = read_json(path)
        shown = {str(image["id"]): image for image in content["images"]}
        words = {str(c["id"]): str(c["name"]) for c in content.get("categories", ())}
        good = [w for w in words.values() if kind_of(w) == "normal" and w not in normal]
        normal = [*normal, *good]
        found = _instances(str(path), _stamp(path), tuple(normal))
    except DataError as error:
        at.problems.append(str(error))
        return []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        at.problems.append(f"{path}: not COCO annotations ({_reason(error)})")
        return []
    at.identity.append(f"{annotations} {sha256_file(path)} {sorted(normal)}")
    if good:
        at.notes.append(f"{annotations}: annotations called {', '.join(good)} mark no defect")
    if len(shown) < len(content["images"]):
        at.problems.append(f"{path}: two of its images have one id")
    resolve = Resolver(at.root, images)
    samples: list[Sample] = []
    for key, image in shown.items():
        _, marks = found[key]
        try:
            place = resolve(str(image["file_name"]))
        except (KeyError, ValueError) as error:
            at.problems.append(f"{path}, image {key}: {_reason(error)}")
            continue
        category = _category(at, place)
        if category is None:
            at.problems.append(f"{path}, image {key}: lies in no folder of a category")
            continue
        kinds = sorted({words.get(str(m.get("category_id")), "anomaly") for m in marks})
        mask = f"{SCHEME}://{path}#{key}#{','.join(sorted(normal))}" if marks else None
        defect = "+".join(kinds) if marks else "good"
        samples.append(
            at.sample(place, int(bool(marks)), category, mask=mask, defect=defect, split=split)
        )
    check_listed(at, path, samples)
    at.account = listed_account(at, samples, annotations, ignore)
    at.problems += strays_problem(at.account)
    return samples


def _category(at: Indexing, place: str) -> str | None:
    if len(at.spec.categories) == 1:
        return at.only_category
    names = {n.casefold(): n for n in at.spec.categories}
    parts = at.relative(place).split("/")[:-1]
    return next((names[p.casefold()] for p in parts if p.casefold() in names), None)


def _reason(error: Exception) -> str:
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)
def _instances(path: str, stamp: tuple[int, int], normal: tuple[str, ...]) -> Instances:
    """What is marked on each image, by its id.  Raises ``KeyError``, ``ValueError``, ..."""
    content = read_json(path)
    plain = {n.casefold() for n in normal}
    skipped = {c["id"] for c in content.get("categories", ()) if str(c["name"]).casefold() in plain}
    marks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for image in content["images"]:
        sizes[str(image["id"])] = int(image["height"]), int(image["width"])
    for mark in content["annotations"]:
        if str(mark["image_id"]) not in sizes:
            raise ValueError(f"annotation {mark.get('id')} marks no listed image")
        if _in_shares(mark):
            raise ValueError(
                f"annotation {mark.get('id')} is given in shares of the picture; COCO's are pixels"
            )
        if mark.get("category_id") not in skipped:
            marks[str(mark["image_id"])].append(mark)
    return {key: (size, marks[key]) for key, size in sizes.items()}


def _in_shares(mark: dict[str, Any]) -> bool:
    """Whether a box or polygon reaches no further than the first pixel, by fractions of it."""
    shape = mark.get("segmentation")
    polygons = shape if isinstance(shape, list) else []
    values = [v for points in polygons for v in points] or list(mark.get("bbox") or [])
    numbers = [v for v in values if isinstance(v, (int, float))]
    return bool(numbers) and max(numbers) <= 1 and any(v % 1 for v in numbers)


# ---------------------------------------------------------------------------------- masks
def _read(uri: str) -> Image.Image:
    """The mask of ``coco://FILE#IMAGE#NORMAL,...``."""
    place, key, normal = uri.removeprefix(f"{SCHEME}://").rsplit("#", 2)
    names = tuple(n for n in normal.split(",") if n)
    try:
        size, marks = _instances(place, _stamp(Path(place)), names)[key]
        if min(size) < 1 or math.prod(size) > PICTURE.value():
            raise ValueError(
                f"an image of {size[1]}x{size[0]} pixels, beyond the limit of "
                f"{PICTURE.value():,}; {PICTURE.raised()}"
            )
        marked = np.zeros(size, dtype=bool)
        for mark in marks:
            marked |= drawn(mark, size)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{place}, image {key}: cannot be drawn ({_reason(error)})") from None
    return Image.fromarray(marked.astype(np.uint8) * 255)


register_reader(SCHEME, _read)


def drawn(mark: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels that an annotation marks, bool [H, W]; ``size`` = (H, W).

    A pixel is inside of a polygon if its centre is, and inside of a box if the box touches it.
    """
    shape = mark.get("segmentation")
    if isinstance(shape, dict):
        counts = shape["counts"]
        runs = counts if isinstance(counts, list) else run_lengths(counts)
        height, width = shape.get("size") or size
        # Counted before anything of that length is made.
        if (height, width) != tuple(size) or sum(runs) != height * width or min(runs) < 0:
            raise ValueError(f"run lengths of {sum(runs)} pixels for {size[1]}x{size[0]}")
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return values.reshape((width, height)).T
    marked = np.zeros(size, dtype=bool)
    if shape:
        from skimage.draw import polygon

        for points in shape:
            x, y = np.asarray(points[0::2], float) - 0.5, np.asarray(points[1::2], float) - 0.5
            marked[polygon(y, x, size)] = True
        return marked
    left, top, width, height = (float(v) for v in mark["bbox"])
    rows = slice(max(0, int(np.floor(top))), max(0, int(np.ceil(top + height))))
    columns = slice(max(0, int(np.floor(left))), max(0, int(np.ceil(left + width))))
    marked[rows, columns] = True
    return marked


def run_lengths(text: str) -> list[int]:
    """The counts of COCO's compressed run lengths: five bits a character, from the third count on
    as the difference to the last but one."""
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[at]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at, shift = at + 1, shift + 5
            if not more and code & 0x10:
                value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts
