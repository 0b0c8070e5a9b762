"""Which picture a mask belongs to, by its name and folder.  Nothing is paired by position."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from zsad.errors import counted

# What a mask's name may add to that of its picture: behind it or before it, with "_", "-", "." or a
# blank between, or nothing at all.  The message of an unpaired mask and docs/add-a-dataset.md list
# them.
MASK_WORDS = (
    "mask", "masks", "label", "labels", "gt", "seg", "segmentation", "groundtruth", "ground_truth",
    "ground-truth", "annotation", "anomaly_mask", "anomaly-mask", "defect_mask", "defect-mask",
    "label_mask", "seg_mask", "gt_mask", "mask_gt",
)  # fmt: skip
NAMING = (
    "a mask is named like its picture, with or without _mask, _label, _seg, _segmentation, _gt or "
    "_ground_truth behind the name or before it (also -mask, .mask, mask_0, 0.png.png)"
)
_WORD = "|".join(sorted(map(re.escape, MASK_WORDS), key=len, reverse=True))
_BEHIND = re.compile(rf"(?P<name>.+?)[_\-. ]+(?:{_WORD})[_\-. ]?\d*", re.IGNORECASE)
_BEFORE = re.compile(rf"(?:{_WORD})[_\-. ]+(?P<name>.+)", re.IGNORECASE)
_GLUED = re.compile(r"(?P<name>.*\d)mask", re.IGNORECASE)
_IMAGE = re.compile(
    r"(?:(?:image|img|rgb)[_\-. ]*(?P<a>.+)|(?P<b>.+?)[_\-. ]+(?:image|img|rgb))", re.I
)

# How the name of a picture may differ from that of its mask, where both say what they are.
_IMAGE_FORMS = (("", "_image"), ("", "_img"), ("image_", ""), ("img_", ""), ("", "-image"))


class Named(NamedTuple):
    """A file to be paired.  ``path``: below the folder.  ``within``: the folders that tell equal
    names apart (defect types, cameras), lower case.  ``label``: 1 of an anomalous picture; of a
    mask None, or what its folder says.  ``train``: whether a folder says that it is of the training
    part."""

    path: str
    within: tuple[str, ...] = ()
    label: int | None = None
    train: bool = False

    @property
    def file(self) -> str:
        return os.path.basename(self.path)

    @property
    def stem(self) -> str:
        return os.path.splitext(self.file)[0]


def named_like_a_mask(stem: str) -> str | None:
    """The name of the picture that a name like a mask's belongs to, or None: ``0_mask`` -> 0."""
    for pattern in (_BEHIND, _BEFORE, _GLUED):
        if match := pattern.fullmatch(stem):
            return match["name"]
    return None


def beside(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Of files in folders of pictures, those named like a mask: ``{path: (the name that its picture
    has, the picture beside it or "")}``, ``bad/0_mask.png`` -> ``("0", "bad/0.png")``."""
    named: dict[str, str] = {}
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for path in paths:
        folder, file = os.path.split(path)
        stem = os.path.splitext(file)[0]
        for a, b in (("", ""), *_IMAGE_FORMS):
            folders[folder].setdefault(f"{a}{stem}{b}".casefold(), path)
        if inner := named_like_a_mask(stem):
            named[path] = inner
    found: dict[str, tuple[str, str]] = {}
    for path, inner in named.items():
        there = folders[os.path.dirname(path)]
        # As it is, or where the picture's name says that it is one: 0_image.png, 0_mask.png.
        forms = (f"{a}{inner}{b}".casefold() for a, b in (("", ""), *_IMAGE_FORMS))
        hits = (there[form] for form in forms if form in there)
        found[path] = inner, next((h for h in hits if h != path), "")
    return found


def pair(
    pictures: Sequence[Named], masks: Sequence[Named]
) -> tuple[dict[str, str], dict[str, str]]:
    """``({mask: its picture}, {mask: why it has none})``.

    A mask in a folder of a defect type belongs to a picture of that type; one that lies flat, to
    the only picture of that name (an anomalous one before a normal one).  Several masks of one
    picture are united where their folder has its name; otherwise the second one is refused.
    """
    found: dict[str, str] = {}
    left = list(masks)
    # From the strict to the lenient: as it is, without regard to case, to zero padding, to img_.
    for key in (str, str.casefold, _unpadded, _without_image):
        by_name = _by_name(pictures, key)
        for mask in left:
            if hits := _best(mask, by_name, key):
                found[mask.path] = hits
        left = [m for m in masks if m.path not in found]
        if not left:
            break
    failed = {m.path: _why(m, pictures) for m in left}
    users: dict[str, list[Named]] = defaultdict(list)
    for mask in masks:
        if mask.path in found:
            users[found[mask.path]].append(mask)
    for picture, several in users.items():
        if len(several) > 1 and not _pieces(picture, several):
            for mask in several:
                del found[mask.path]
                others = [m.file for m in several if m is not mask]
                failed[mask.path] = f"{others[0]} belongs to the same picture"
    return found, failed


def _best(mask: Named, by_name: dict[str, list[Named]], key: Callable[[str], str]) -> str:
    """The one picture that fits best, or ""."""
    for name, within in _readings(mask):
        fitting = [
            p
            for p in by_name.get(key(name), ())
            if set(within) <= set(p.within)
            and (mask.label is None or mask.label == p.label)
            and (p.train or not mask.train)
        ]
        if not fitting:
            continue
        # anomalous before normal, then fewest folders that the mask does not name
        ranked = sorted(fitting, key=lambda p: _rank(p, within, mask.label))
        first, *others = (_rank(p, within, mask.label) for p in ranked)
        if not others or first != others[0]:
            return ranked[0].path
    return ""


def _rank(picture: Named, within: Sequence[str], label: int | None) -> tuple[int, int, bool]:
    # Masks of normal pictures are made for those that are tested; they count for nothing.
    trained = label == 0 and picture.train
    return 0 if picture.label else 1, len(set(picture.within) - set(within)), trained


def _readings(mask: Named) -> list[tuple[str, tuple[str, ...]]]:
    """Names that the picture may have, with the folders to look in; the likeliest first."""
    names = [mask.stem, mask.file]
    if (inner := named_like_a_mask(mask.stem)) is not None:
        names.append(inner)
    out = [(name, mask.within) for name in dict.fromkeys(names)]
    if mask.within:  # a folder of masks for each picture
        out.append((mask.within[-1], mask.within[:-1]))
    return out


def _by_name(pictures: Iterable[Named], key: Callable[[str], str]) -> dict[str, list[Named]]:
    found: dict[str, list[Named]] = defaultdict(list)
    for picture in pictures:
        for name in dict.fromkeys((key(picture.stem), key(picture.file))):
            found[name].append(picture)
    return found


def _unpadded(name: str) -> str:
    return re.sub(r"\d+", lambda m: str(int(m.group())), name.casefold())


def _without_image(name: str) -> str:
    """``image_0``, ``0_img`` -> 0: where masks are called mask_0 or 0_mask."""
    match = _IMAGE.fullmatch(name)
    return _unpadded((match["a"] or match["b"]) if match else name)


def _pieces(picture: str, masks: Sequence[Named]) -> bool:
    """Whether several masks are parts of one: in a folder named like the picture, or numbered."""
    stem = os.path.splitext(os.path.basename(picture))[0].casefold()
    if all(m.within and m.within[-1] == stem for m in masks):
        return True
    numbers = [re.fullmatch(rf"(.+?[_\-. ]+(?:{_WORD}))[_\-. ]?(\d*)", m.stem, re.I) for m in masks]
    heads = {n[1].casefold() for n in numbers if n}
    return all(numbers) and len(heads) == 1 and len({n[2] for n in numbers if n}) == len(masks)


def _why(mask: Named, pictures: Sequence[Named]) -> str:
    """Why a mask has no picture."""
    names = {_unpadded(name) for name, _ in _readings(mask)}
    same = [p.path for p in pictures if _unpadded(p.stem) in names]
    if len(same) > 1:
        return (
            f"{counted(len(same), 'picture has', 'pictures have')} that name ({same[0]}, {same[1]})"
        )
    if same:
        return f"{same[0]} has that name, but lies in another folder"
    return "no picture has that name"
