"""Real-IAD: a JSON file of each category lists its images, masks and split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zsad.data.indexers.base import Indexing, NotThisLayout, find_folder, indexer, posix
from zsad.errors import DataError
from zsad.io import read_json
from zsad.types import Sample

NORMAL = "OK"


@indexer("real_iad")
def real_iad(
    at: Indexing,
    *,
    lists: str = "realiad_jsons",
    sizes: Sequence[str] = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw"),
) -> list[Sample]:
    """``<lists>/<category>.json`` beside ``realiad_<size>/<category>/...``.

    ``lists``: the folder of lists, beside the images, in ``realiad_jsons`` or in ``splits``, where
    different programs look for it.  Each list has ``train`` and ``test``, entries with
    ``image_path``, ``mask_path`` and ``anomaly_class`` ("OK" is normal: a view of a defective
    object may be), relative to the category's folder.  ``sizes``: folders of images, the first one
    that is there is read; which one is noted.
    """
    places = [at.root / lists, at.root / "realiad_jsons" / lists, at.root / "splits" / lists]
    known = at.spec.categories
    folder = next((p for p in places if any((p / f"{c}.json").is_file() for c in known)), None)
    if folder is None:
        raise NotThisLayout(f"{at.root / lists}/<category>.json is missing")
    images = find_folder(at.root, *sizes)
    if images is None:
        at.problems.append(f"{at.root}: none of {', '.join(sizes)} is there to hold the images")
        return []
    at.notes.append(f"images of {images.name}, lists of {at.relative(str(folder))}")
    samples: list[Sample] = []
    for category in known:
        path = folder / f"{category}.json"
        if path.is_file():
            samples += _listed(at, path, images / category, category)
    return samples


def _listed(at: Indexing, path: Path, home: Path, category: str) -> list[Sample]:
    try:
        content = read_json(path)
        parts = {split: list(content[split]) for split in ("train", "test")}
    except DataError as error:
        at.problems.append(str(error))
        return []
    except (KeyError, TypeError) as error:
        at.problems.append(f"{path}: not a list of Real-IAD ({type(error).__name__}: {error})")
        return []
    samples: list[Sample] = []
    split: Literal["train", "test"]
    for split in ("train", "test"):
        for number, entry in enumerate(parts[split]):
            try:
                samples.append(_sample(at, entry, home, category, split))
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                why = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
                at.problems.append(f"{path}, {split} entry {number}: {why}")
    return samples


def _sample(
    at: Indexing, entry: Any, home: Path, category: str, split: Literal["train", "test"]
) -> Sample:
    kind, mask = str(entry["anomaly_class"]), entry.get("mask_path") or ""
    if kind != NORMAL and not mask:
        raise ValueError(f"anomaly_class is {kind}, but there is no mask_path")
    if kind == NORMAL and mask:
        raise ValueError(f"anomaly_class is {NORMAL}, but there is a mask_path")
    return at.sample(
        _below(home, entry["image_path"]),
        int(kind != NORMAL),
        category,
        mask=_below(home, mask) if mask else None,
        defect="good" if kind == NORMAL else kind,
        split=split,
    )


def _below(home: Path, text: str) -> str:
    path = posix(text)
    if os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError(f"path '{text}' leads out of the category's folder")
    return os.path.join(home, path)
