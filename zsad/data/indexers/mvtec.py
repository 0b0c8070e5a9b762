"""Layouts with a train and a test part, and a folder per defect type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from zsad.data.indexers.base import (
    MASK_ENDINGS,
    Indexing,
    NotThisLayout,
    find_below,
    find_folder,
    indexer,
    listed,
    pair_masks,
    subfolders,
)
from zsad.errors import counted
from zsad.types import Sample


@indexer("mvtec_like")
def mvtec_like(
    at: Indexing,
    *,
    normal: Sequence[str] = ("good",),
    masks: str | None = "ground_truth",
    mask_endings: Sequence[str] = MASK_ENDINGS,
    folders: dict[str, Sequence[str]] | None = None,
    anomalous: Sequence[str] = (),
    test: str = "test",
    unused: Sequence[str] = (),
) -> list[Sample]:
    """``<category>/{train,test}/<type>/*`` and ``<category>/ground_truth/<type>/*_mask.*``.

    ``normal``: names of the folder of normal images, compared without case.  ``masks``: the
    mask folder's name or path below the category's, None if the dataset has no masks.
    ``folders``: other names of a category's folder ("." = the root is the category).
    ``anomalous``: the only other type names there may be; empty means that every other folder is a
    defect type.  ``test``: the folder that is tested on; ``unused``: further parts of a category
    that no figure is made on, which a note names.
    """
    samples: list[Sample] = []
    seen: dict[str, None] = {}
    for category in at.spec.categories:
        names = (category, *(folders or {}).get(category, ()))
        home = next((f for n in names if (f := _home(at.root, n, test)) is not None), None)
        if home is not None:
            samples += _one(at, category, home, test, normal, masks, mask_endings, anomalous)
            seen.update(dict.fromkeys(n for n in unused if find_folder(home, n) is not None))
    if not samples:
        first = next(iter(at.spec.categories))
        raise NotThisLayout(f"no images in {at.root}/{first}/{test} or the like")
    if seen:
        at.notes.append(f"left out, no figure is made on them: {', '.join(seen)}")
    return samples


def _home(root: Path, name: str, test: str) -> Path | None:
    home = root if name == "." else find_folder(root, name)
    return home if home is not None and find_folder(home, test) is not None else None


def _one(
    at: Indexing,
    category: str,
    home: Path,
    tested: str,
    normal: Sequence[str],
    masks: str | None,
    endings: Sequence[str],
    anomalous: Sequence[str],
) -> list[Sample]:
    samples: list[Sample] = []
    normal_names = {n.lower() for n in normal}
    wanted = {a.lower() for a in anomalous}
    train, test = find_folder(home, "train"), find_folder(home, tested)
    for split, part in (("train", train), ("test", test)):
        if part is None:
            continue
        for defect, folder in subfolders(part).items():
            images = listed(folder)
            if defect.lower() in normal_names:
                samples += [_normal(at, p, category, split) for p in images]
            elif not wanted or defect.lower() in wanted:
                pairs: dict[str, str] = {}
                where = at.relative(str(folder))
                if masks is not None:
                    truth = find_below(home, masks)
                    found = find_folder(truth, defect) if truth is not None else None
                    if found is None:
                        at.problems.append(
                            f"{where}: {counted(len(images), 'anomalous image')} but no folder "
                            f"{masks}/{defect} with masks"
                        )
                    else:
                        pairs = pair_masks(images, listed(found), where, at.problems, endings)
                samples += _anomalous(at, images, pairs, category, defect, split)
    if test is not None and not any(s.split == "test" for s in samples):
        at.problems.append(f"{at.relative(str(test))}: no images; was the archive extracted whole?")
    return samples


def _normal(at: Indexing, path: str, category: str, split: str) -> Sample:
    return at.sample(path, 0, category, defect="good", split=_split(split))


def _anomalous(
    at: Indexing,
    images: Iterable[str],
    pairs: dict[str, str],
    category: str,
    defect: str,
    split: str,
) -> list[Sample]:
    return [
        at.sample(p, 1, category, mask=pairs.get(p), defect=defect, split=_split(split))
        for p in images
    ]


def _split(name: str) -> Literal["train", "test"]:
    return "train" if name == "train" else "test"


LABELS = ("label", "anomaly_mask")  # of BMAD's masks; which one depends on who packed them


@indexer("bmad")
def bmad(at: Indexing, *, normal: str = "good", anomalous: str = "Ungood") -> list[Sample]:
    """``{train,test}/{good,Ungood}/{img,label}/*``, as BMAD is distributed (masks lie in
    ``anomaly_mask`` elsewhere).

    ``train/good`` may hold the images one level higher.  The label files of normal images are
    all black and are left alone; so is ``valid``, which no published figure is made on.
    """
    test = find_folder(at.root, "test")
    if test is None or find_folder(test, anomalous) is None:
        raise NotThisLayout(f"{at.root}/test/{anomalous} is missing")
    category = at.only_category
    samples: list[Sample] = []
    for split in ("train", "test"):
        part = find_folder(at.root, split)
        good = find_folder(part, normal) if part is not None else None
        if good is not None:
            images = listed(find_folder(good, "img") or good)
            samples += [_normal(at, p, category, split) for p in images]
        bad = find_folder(part, anomalous) if part is not None else None
        if bad is None:
            continue
        folder, labels = find_folder(bad, "img"), find_folder(bad, *LABELS)
        where = at.relative(str(bad))
        if folder is None or labels is None:
            at.problems.append(f"{where}: needs both folders img and {' or '.join(LABELS)}")
            continue
        images = listed(folder)
        pairs = pair_masks(images, listed(labels), where, at.problems)
        samples += _anomalous(at, images, pairs, category, anomalous, split)
    return samples
