"""The index file ``meta.json`` that repositories of the AnomalyCLIP family prepare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from zsad.data.indexers.base import Indexing, NotThisLayout, indexer, mask_key, stem
from zsad.data.indexers.lists import (
    META_FORM,
    check_listed,
    cut_lossy,
    listed_account,
    without_validation,
)
from zsad.data.indexers.words import kind_of
from zsad.errors import DataError, counted
from zsad.io import read_json
from zsad.types import Sample

LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}


@indexer("meta_json")
def meta_json(at: Indexing, *, file: str = "meta.json", ignore: Sequence[str] = ()) -> list[Sample]:
    """``{"train": {class: [entry]}, "test": {...}}`` at the root of the dataset.

    Split names are compared without case and may be absent.  Paths that repeat the root, as
    some generators write them, are cut down.  A class is matched to a category without regard
    to case, blanks and underscores; a dataset of one category takes every class name.
    ``ignore``: patterns of pictures that are not listed and left out.
    """
    path = at.root / file
    if not path.is_file():
        raise NotThisLayout(f"{path} is missing")
    try:
        splits = {str(k).lower(): v for k, v in read_json(path).items()}
        parts = {s: dict(splits.get(s) or {}) for s in ("train", "test")}
    except DataError as error:
        at.problems.append(str(error))
        return []
    except (ValueError, AttributeError, TypeError) as error:
        at.problems.append(f"{path}: not {META_FORM} ({error})")
        return []
    known = {_plain(key): key for key in at.spec.categories}
    own = bool(at.spec.root)  # a user's own
    if own:
        parts = _parts(at, path, splits)
    listed: list[tuple[Sample, bool]] = []
    for split, classes in parts.items():
        for name, entries in classes.items():
            category = known.get(_plain(name))
            if category is None and len(at.spec.categories) == 1:
                category = at.only_category
            if category is None:
                at.problems.append(f"{path}: class '{name}' is not a category of {at.spec.name}")
                continue
            if not isinstance(entries, list):
                at.problems.append(f"{path}: '{name}' of {split} is not a list of entries")
                continue
            found = _entries(at, path, split, category, entries)
            listed += [(cut_lossy(s) if own else s, split == "val") for s in found]
    samples = without_validation(at, listed)
    _check_masks(at, path, samples)
    if own:
        check_listed(at, path, samples)
        at.account = listed_account(at, samples, file, ignore)
    return samples


def _parts(at: Indexing, path: Path, splits: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of a user's own list by what their names say; others are problems."""
    parts: dict[str, dict[str, Any]] = {}
    for name, classes in splits.items():
        kind = kind_of(name)
        if kind not in ("train", "test", "val") or kind in parts:
            at.problems.append(f"{path}: part '{name}' is not one of train, val and test")
        else:
            parts[kind] = dict(classes or {})
    return parts


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def _entries(at: Indexing, path: Path, split: str, category: str, entries: Any) -> list[Sample]:
    samples: list[Sample] = []
    resolve = _Resolver(at.root)
    for number, entry in enumerate(entries):
        where = f"{path}, {split} entry {number} of '{category}'"
        image = ""
        try:
            image = resolve(str(entry["img_path"]))
            stated = entry["anomaly"]
            if str(stated) not in LABELS:
                raise ValueError(f"anomaly={stated!r} is not 0 or 1")
            label = LABELS[str(stated)]
            mask = str(entry.get("mask_path") or "")
            found = resolve(mask) if mask else None
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            at.problems.append(f"{where}: {_reason(error)}")
            if image:
                at.refused.setdefault(at.relative(image), f"{path.name}: {_reason(error)}")
            continue
        if found and not label:
            at.masks_of_normal.append((found, image))
            found = None
        if label and found is None and "pixel" in at.spec.levels and not at.spec.root:
            at.problems.append(f"{where}: an anomalous image without a mask")
        defect = str(entry.get("specie_name") or "") or ("anomaly" if label else "good")
        samples.append(
            at.sample(
                image,
                label,
                category,
                mask=found,
                defect=defect,
                split="train" if split == "train" else "test",
            )
        )
    return samples


def _reason(error: Exception) -> str:
    return f"key {error} is missing" if isinstance(error, KeyError) else str(error)


class _Resolver:
    """Paths below ``root``; leading parts that repeat the root are dropped where needed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.drop = 0  # parts dropped last time: the next path most likely needs the same

    def __call__(self, text: str) -> str:
        parts = [p for p in PurePosixPath(text.replace("\\", "/")).parts if p not in ("/", ".")]
        if not parts:
            raise ValueError("img_path is empty")
        if ".." in parts:
            raise ValueError(f"path '{text}' leads out of the dataset's folder")
        for drop in dict.fromkeys((self.drop, *range(len(parts)))):
            if drop >= len(parts):
                continue
            path = os.path.join(self.root, *parts[drop:])
            if os.path.isfile(path):
                self.drop = drop
                return path
        return os.path.join(self.root, *parts[min(self.drop, len(parts) - 1) :])


def _check_masks(at: Indexing, path: Path, samples: list[Sample]) -> None:
    """Report masks used twice, and masks whose name belongs to another image.

    Several generators pair two sorted listings by position, which shifts every later mask
    after one missing file.
    """
    users: dict[str, str] = {}
    masked = [s for s in samples if s.mask]
    for sample in masked:
        mask = str(sample.mask)
        if users.setdefault(mask, sample.image) != sample.image and not at.spec.root:
            at.problems.append(f"{path}: mask {os.path.basename(mask)} is used by two images")
    groups: Mapping[tuple[str, str], list[Sample]] = _by_type(masked)
    for (category, defect), group in groups.items():
        names = {stem(s.image) for s in group}
        wrong = [
            s
            for s in group
            if mask_key(str(s.mask)) != stem(s.image) and mask_key(str(s.mask)) in names
        ]
        if wrong:
            at.problems.append(
                f"{path}: {counted(len(wrong), 'image')} of {category}/{defect} with another "
                "image's mask "
                f"(first: {os.path.basename(wrong[0].image)} with "
                f"{os.path.basename(str(wrong[0].mask))})"
            )


def _by_type(samples: list[Sample]) -> dict[tuple[str, str], list[Sample]]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.category, sample.defect), []).append(sample)
    return groups
