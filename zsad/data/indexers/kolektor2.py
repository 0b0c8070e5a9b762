"""KolektorSDD2: a mask beside every image, and no list of labels."""

from __future__ import annotations

from typing import Literal

from zsad.data.indexers.base import Indexing, NotThisLayout, find_folder, indexer, listed, stem
from zsad.errors import DataError, counted
from zsad.types import Sample

TRUTH = "_GT"


@indexer("kolektor2")
def kolektor2(at: Indexing) -> list[Sample]:
    """``{train,test}/NNNNN.png`` with ``NNNNN_GT.png``.

    An image is defective if a pixel of its mask is not black, decided at the mask's own size (a
    mask that is resized first loses small defects), so every mask is read.  Names with anything
    but digits, such as ``10301 (copy).png``, are left out and counted in a note.
    """
    from zsad.data.images import mask_values

    folders = {split: find_folder(at.root, split) for split in ("train", "test")}
    parts = {s: {stem(p): p for p in listed(f)} for s, f in folders.items() if f is not None}
    if not any(name.endswith(TRUTH) for files in parts.values() for name in files):
        raise NotThisLayout(f"no NNNNN.png with NNNNN{TRUTH}.png in {at.root}/test")
    samples: list[Sample] = []
    strange: list[str] = []
    for split, files in parts.items():
        where: Literal["train", "test"] = "train" if split == "train" else "test"
        strange += [p for name, p in files.items() if not name.removesuffix(TRUTH).isdigit()]
        for name in [n for n in files if n.isdigit()]:
            truth = files.get(f"{name}{TRUTH}")
            if truth is None:
                at.problems.append(f"{at.relative(files[name])}: its {name}{TRUTH} is missing")
                continue
            try:
                bad = bool(mask_values(truth).any())
            except DataError as error:
                at.problems.append(str(error))
                continue
            samples.append(
                at.sample(
                    files[name],
                    int(bad),
                    at.only_category,
                    mask=truth if bad else None,
                    defect="defect" if bad else "good",
                    split=where,
                )
            )
    if strange:
        at.notes.append(
            f"{counted(len(strange), 'file')} with other names than numbers left out (first: "
            f"{at.relative(strange[0])})"
        )
    return samples
