"""MVTec LOCO: a folder of masks for every anomalous image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zsad.data.indexers.base import (
    Indexing,
    NotThisLayout,
    find_folder,
    indexer,
    listed,
    stem,
    subfolders,
)
from zsad.errors import counted
from zsad.types import Sample


@indexer("mask_folders")
def mask_folders(
    at: Indexing,
    *,
    normal: str = "good",
    anomalous: Sequence[str] = ("logical_anomalies", "structural_anomalies"),
) -> list[Sample]:
    """``<category>/{train,test}/<type>/NNN.png``, ``<category>/ground_truth/<type>/NNN/*.png``.

    All masks of an image are united: each marks one anomaly, and reading the first alone would lose
    the others.  ``validation`` is left out, because no figure is made on it.
    """
    samples: list[Sample] = []
    for category in at.spec.categories:
        home = find_folder(at.root, category)
        test = find_folder(home, "test") if home is not None else None
        if home is None or test is None:
            continue
        for split, part in (("train", find_folder(home, "train")), ("test", test)):
            good = find_folder(part, normal) if part is not None else None
            for path in listed(good) if good is not None else ():
                where: Literal["train", "test"] = "train" if split == "train" else "test"
                samples.append(at.sample(path, 0, category, defect=normal, split=where))
        for defect, folder in subfolders(test).items():
            if defect.lower() in {name.lower() for name in anomalous}:
                truth = find_folder(home, "ground_truth")
                found = find_folder(truth, defect) if truth is not None else None
                samples += _anomalous(at, category, defect, folder, found)
    if not samples:
        first = next(iter(at.spec.categories))
        raise NotThisLayout(f"no images in {at.root}/{first}/test/{normal}")
    return samples


def _anomalous(
    at: Indexing, category: str, defect: str, folder: Path, truth: Path | None
) -> list[Sample]:
    images, where = listed(folder), at.relative(str(folder))
    masks = {n: listed(p) for n, p in subfolders(truth).items()} if truth is not None else {}
    bare = [p for p in images if not masks.get(stem(p))]
    if bare:
        at.problems.append(
            f"{where}: {len(bare)} of {counted(len(images), 'anomalous image')} without a folder "
            f"of masks in ground_truth/{defect} (first: {Path(bare[0]).name})"
        )
    strange = sorted(set(masks) - {stem(p) for p in images})
    if strange:
        at.problems.append(
            f"{where}: "
            f"{counted(len(strange), 'folder of masks belongs', 'folders of masks belong')} to "
            f"no image (first: {strange[0]})"
        )
    samples = []
    for path in images:
        own: list[str | None] = [*masks.get(stem(path), [])] or [None]
        rest = tuple(p for p in own[1:] if p)
        samples.append(at.sample(path, 1, category, mask=own[0], defect=defect, extra_masks=rest))
    return samples
