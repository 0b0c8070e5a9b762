"""What all indexers share: the registry, folder listings, pairing by stem, the hold-out."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from zsad.data.account import Account
from zsad.data.images import is_picture
from zsad.errors import counted
from zsad.types import Sample

if TYPE_CHECKING:
    from zsad.data.definition import DatasetSpec

MASK_ENDINGS = ("_mask", "_label", "_segmentation", "_gt")


class NotThisLayout(Exception):
    """The folder does not lie in the layout that an indexer reads; the text says why."""


@dataclass
class Indexing:
    """One attempt to index a folder.  Indexers append to ``problems`` (what makes the index
    wrong: it is refused), to ``notes`` (worth knowing), to ``identity`` (what numbers depend on
    besides the files) and to ``masks_of_normal`` ((mask, normal picture): to be looked at).
    ``account``: what every file was taken for, where an indexer says so.  ``ignore_masks``: a file
    or folder below the root that says what is not looked at, and holds no pictures of its own.
    ``refused`` and ``by_rule``: why a picture that a list names has no role, or is left out, by its
    path below the root."""

    spec: DatasetSpec
    root: Path
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identity: list[str] = field(default_factory=list)
    account: Account | None = None
    masks_of_normal: list[tuple[str, str]] = field(default_factory=list)
    ignore_masks: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    by_rule: dict[str, str] = field(default_factory=dict)

    def require(self, *parts: str) -> Path:
        """The path below the root, or :class:`NotThisLayout` if it is not there."""
        path = self.root.joinpath(*parts)
        if not path.exists():
            raise NotThisLayout(f"{path} is missing")
        return path

    def relative(self, path: str) -> str:
        """``path`` below the root, with forward slashes: the stem of a sample's ``uid``."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def sample(
        self,
        path: str,
        label: int,
        category: str,
        *,
        mask: str | None = None,
        defect: str = "",
        split: Literal["train", "test"] = "test",
        crop: tuple[int, int, int, int] | None = None,
        extra_masks: tuple[str, ...] = (),
        tile: int | None = None,
    ) -> Sample:
        """A sample whose ``uid`` is its relative path (and tile number)."""
        uid = self.relative(path) + ("" if tile is None else f"#{tile}")
        return Sample(path, label, category, mask, defect, split, crop, extra_masks, uid)

    @property
    def only_category(self) -> str:
        """The category of a dataset that has just one."""
        return next(iter(self.spec.categories))


Indexer = Callable[..., list[Sample]]
INDEXERS: dict[str, Indexer] = {}


def indexer(name: str) -> Callable[[Indexer], Indexer]:
    """Register ``function(indexing, **options) -> list[Sample]`` under ``name``."""

    def register(function: Indexer) -> Indexer:
        if INDEXERS.get(name, function) is not function:
            raise ValueError(f"indexer '{name}' is registered twice")
        INDEXERS[name] = function
        return function

    return register


# ------------------------------------------------------------------------------- folders
def listed(folder: Path | str) -> list[str]:
    """Full paths of the image files of a folder, sorted naturally; other files are left out.

    What counts as one: :func:`zsad.data.images.is_picture`.  What a file really holds is found
    out when it is opened.
    """
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if is_picture(entry.name) and entry.is_file()]
    return sorted(found, key=natural)


def subfolders(folder: Path | str) -> dict[str, Path]:
    """``{name: path}`` of the visible folders in ``folder``, sorted naturally."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX"))]
    return {name: Path(folder, name) for name in sorted(names, key=natural)}


def find_folder(folder: Path | str, *names: str) -> Path | None:
    """The first of ``names`` that is a folder in ``folder``, compared without case."""
    if not os.path.isdir(folder):
        return None
    present = {name.lower(): path for name, path in subfolders(folder).items()}
    return next((present[n.lower()] for n in names if n.lower() in present), None)


def find_below(folder: Path, path: str) -> Path | None:
    """The folder at ``path`` (``a/b``) below ``folder``, every name compared without case."""
    found: Path | None = folder
    for name in path.split("/"):
        found = find_folder(found, name) if found is not None else None
    return found


def spoken(key: str) -> str:
    """How prompts call a folder: ``metal_nut`` -> ``metal nut``."""
    return re.sub(r"[_\-\s]+", " ", key).strip() or "object"


def natural(path: str) -> tuple[str | int, ...]:
    """A sort key that puts 2 before 10."""
    parts = re.split(r"(\d+)", path)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(parts))


# ------------------------------------------------------------------------------- pairing
def stem(path: str) -> str:
    """File name without folder and ending (only the last ending is taken off)."""
    return os.path.splitext(os.path.basename(path))[0]


def mask_key(path: str, endings: Sequence[str] = MASK_ENDINGS) -> str:
    """The stem of the image that a mask belongs to: ``007_mask.png`` -> ``007``."""
    name = stem(path)
    for ending in endings:
        if len(name) > len(ending) and name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def pair_masks(
    images: Sequence[str],
    masks: Sequence[str],
    where: str,
    problems: list[str],
    endings: Sequence[str] = MASK_ENDINGS,
) -> dict[str, str]:
    """Pair images and masks by stem, one to one: ``{image: mask}``.

    Names that agree exactly come first; what is left may differ in zero padding.  Anything
    unpaired or doubly paired goes to ``problems``; nothing is ever paired by position.
    """
    pairs: dict[str, str] = {}
    left_images, left_masks = list(images), list(masks)
    for key in (str, _unpadded):
        by_image = _grouped((key(stem(p)), p) for p in left_images)
        by_mask = _grouped((key(mask_key(p, endings)), p) for p in left_masks)
        for name in by_image.keys() & by_mask.keys():
            if len(by_image[name]) == len(by_mask[name]) == 1:
                pairs[by_image[name][0]] = by_mask[name][0]
        used = set(pairs.values())
        left_images = [p for p in left_images if p not in pairs]
        left_masks = [p for p in left_masks if p not in used]
    if left_images:
        problems.append(
            f"{where}: {len(left_images)} of {counted(len(images), 'anomalous image')} without a "
            f"mask of its own (first: {os.path.basename(left_images[0])})"
        )
    if left_masks:
        problems.append(
            f"{where}: {len(left_masks)} of {counted(len(masks), 'mask')} without an image "
            f"(first: {os.path.basename(left_masks[0])})"
        )
    return pairs


def _grouped(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, path in named:
        groups[name].append(path)
    return groups


def _unpadded(name: str) -> str:
    return re.sub(r"\d+", lambda m: str(int(m.group())), name)


# ------------------------------------------------------------------------------ hold-out
def hold_out(count: int, fraction: float = 0.25, seed: int = 42) -> list[int]:
    """Indices that ``sklearn.model_selection.train_test_split`` puts into the test part.

    The same numbers as ``train_test_split(range(count), test_size=fraction,
    random_state=seed)[1]``, sorted, without importing scikit-learn.
    """
    import numpy as np

    shuffled = np.random.RandomState(seed).permutation(count)
    return sorted(int(i) for i in shuffled[: ceil(count * fraction)])


def with_hold_out(normal: Sequence[Sample], fraction: float = 0.25, seed: int = 42) -> list[Sample]:
    """The normal samples in their order, the held-out ones as test, the others as train."""
    from dataclasses import replace

    test = set(hold_out(len(normal), fraction, seed)) if normal else set()
    return [replace(s, split="test" if i in test else "train") for i, s in enumerate(normal)]


def checked_options(function: Indexer, options: Mapping[str, object]) -> None:
    """Raise ``ValueError`` for an option that an indexer does not take."""
    from inspect import signature

    known = [p.name for p in signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise ValueError(f"option '{name}' is not one of: {', '.join(known) or 'none'}")


def posix(path: str) -> str:
    """A relative path with forward slashes and without doubled ones."""
    return str(PurePosixPath(path.replace("\\", "/")))
