"""Layouts where the folder alone says what an image is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsad.data.indexers.base import (
    MASK_ENDINGS,
    Indexing,
    NotThisLayout,
    find_folder,
    indexer,
    listed,
    pair_masks,
    subfolders,
    with_hold_out,
)
from zsad.types import Sample

NORMAL = ("normal", "good", "ok")
ANOMALOUS = ("anomalous", "anomaly", "abnormal", "defective", "defect", "bad", "ng")
MASKS = ("masks", "mask", "ground_truth")
REFERENCES = ("train", "references", "reference")


@indexer("class_folders")
def class_folders(
    at: Indexing,
    *,
    normal: Sequence[str],
    anomalous: Sequence[str],
    inner: Sequence[str] = (),
    held_out: float = 0.0,
    seed: int = 42,
) -> list[Sample]:
    """One folder of normal and one or more of anomalous images, no masks.

    Only the named folders are entered, compared without case: a folder of unlabelled images
    or annotations beside them is not a class.  ``inner``: names of a folder between class and
    images, if there is one.  ``held_out``: share of the normal images that is tested on; the
    others become the training part.  0 tests on all of them.
    """
    good = find_folder(at.root, *normal)
    bad = [f for name in anomalous if (f := find_folder(at.root, name)) is not None]
    if good is None and not bad:
        raise NotThisLayout(f"neither {normal[0]} nor {anomalous[0]} lies in {at.root}")
    if good is None or not bad:
        absent = normal[0] if good is None else anomalous[0]
        at.problems.append(
            f"{at.root}: folder {absent} is missing; was the archive extracted whole?"
        )
    category = at.only_category
    samples: list[Sample] = []
    if good is not None:
        images = listed(find_folder(good, *inner) or good)
        samples = [at.sample(p, 0, category, defect="good") for p in images]
        if held_out:
            samples = with_hold_out(samples, held_out, seed)
    for folder in bad:
        images = listed(find_folder(folder, *inner) or folder)
        samples += [at.sample(p, 1, category, defect=folder.name) for p in images]
    return samples


@indexer("pairs")
def pairs(
    at: Indexing,
    *,
    images: str = "images",
    masks: str = "masks",
    endings: Sequence[str] = MASK_ENDINGS,
) -> list[Sample]:
    """A folder of anomalous images and a folder of their masks; there are no normal images.

    ``images`` may end in ``/*``: the images lie in the sub-folders of it.
    """
    outer = images.removesuffix("/*")
    folder, truth = _descend(at.root, outer), _descend(at.root, masks)
    if folder is None and truth is None:
        raise NotThisLayout(f"neither {images} nor {masks} lies in {at.root}")
    if folder is None or truth is None:
        absent = masks if truth is None else images
        at.problems.append(
            f"{at.root}: folder {absent} is missing; was the archive extracted whole?"
        )
    holders = [] if folder is None else [folder]
    if images.endswith("/*"):
        holders = [] if folder is None else list(subfolders(folder).values())
    found = [p for holder in holders for p in listed(holder)]
    if truth is None or folder is None:
        return [at.sample(p, 1, at.only_category, defect="anomaly") for p in found]
    paired = pair_masks(found, listed(truth), at.relative(str(folder)), at.problems, endings)
    return [at.sample(p, 1, at.only_category, mask=paired.get(p), defect="anomaly") for p in found]


def _descend(root: Path, path: str) -> Path | None:
    """``root/path`` with every step compared without case; None if it is not there."""
    found: Path | None = root
    for part in path.split("/"):
        found = find_folder(found, part) if found is not None else None
    return found


@indexer("folder")
def plain_folder(at: Indexing) -> list[Sample]:
    """A user's own pictures: ``normal/``, ``anomalous/``, optional ``masks/`` and ``train/``.

    With several categories each has a folder of these.  Anomalous images may lie in
    sub-folders named by the type of defect.  Masks carry their image's name, with or without
    ``_mask``; there is one for every anomalous image or there is no ``masks`` folder.
    ``train/`` holds normal reference images.
    """
    samples: list[Sample] = []
    for category in at.spec.categories:
        home = at.root if is_plain(at.root) else find_folder(at.root, category)
        if home is not None and is_plain(home):
            samples += _plain_category(at, home, category)
    if not samples:
        raise NotThisLayout(f"no image in {at.root}/normal or {at.root}/anomalous")
    return samples


def is_plain(folder: Path) -> bool:
    """Whether a folder holds ``normal/`` or ``anomalous/`` (or one of their other names)."""
    return find_folder(folder, *NORMAL, *ANOMALOUS) is not None


def _plain_category(at: Indexing, home: Path, category: str) -> list[Sample]:
    good, bad = find_folder(home, *NORMAL), find_folder(home, *ANOMALOUS)
    truth, reference = find_folder(home, *MASKS), find_folder(home, *REFERENCES)
    samples: list[Sample] = []
    if reference is not None:
        holder = find_folder(reference, *NORMAL) or reference
        samples += [at.sample(p, 0, category, defect="good", split="train") for p in listed(holder)]
    if good is not None:
        samples += [at.sample(p, 0, category, defect="good") for p in listed(good)]
    typed = [] if bad is None else [("anomaly", bad), *subfolders(bad).items()]
    for defect, folder in typed:
        images = listed(folder)
        if not images:
            continue
        paired: dict[str, str] = {}
        if truth is not None:
            own = truth if folder == bad else find_folder(truth, defect) or truth
            paired = pair_masks(images, listed(own), at.relative(str(folder)), at.problems)
        samples += [at.sample(p, 1, category, mask=paired.get(p), defect=defect) for p in images]
    return samples
