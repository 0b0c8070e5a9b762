"""Layouts whose evaluation unit is a piece of an image.

The label of a piece is whether its part of the mask holds a marked pixel, so these two
indexers have to read the mask bitmaps; of the images they read the size alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from zsad.data.indexers.base import (
    Indexing,
    NotThisLayout,
    find_folder,
    indexer,
    listed,
    stem,
    subfolders,
    with_hold_out,
)
from zsad.errors import DataError, counted
from zsad.types import Sample


@indexer("kolektor")
def kolektor(
    at: Indexing, *, pieces: int = 3, held_out: float = 0.25, seed: int = 42
) -> list[Sample]:
    """``kosNN/PartN.jpg`` with ``PartN_label.bmp``, cut into ``pieces`` along its height.

    Any nonzero label pixel marks a piece as defective.  Cuts lie at ``height * i // pieces``:
    pieces differ by a row where the height is not divisible.  Folders and files are sorted
    before the normal pieces are held out, because the original listing order was never fixed.
    """
    from zsad.data.images import mask_values

    homes = [p for name, p in subfolders(at.root).items() if re.fullmatch(r"kos\d+", name.lower())]
    if not homes:
        raise NotThisLayout(f"no folder kos01, kos02, ... lies in {at.root}")
    normal: list[Sample] = []
    defective: list[Sample] = []
    for home in homes:
        files = {stem(p).lower(): p for p in listed(home)}
        for name in [n for n in files if not n.endswith("_label")]:
            label = files.get(f"{name}_label")
            if label is None:
                at.problems.append(f"{at.relative(files[name])}: its {name}_label file is missing")
                continue
            try:
                marked = mask_values(label) > 0
            except DataError as error:
                at.problems.append(str(error))
                continue
            height, width = marked.shape
            for i in range(pieces):
                top, bottom = height * i // pieces, height * (i + 1) // pieces
                bad = bool(marked[top:bottom].any())
                (defective if bad else normal).append(
                    at.sample(
                        files[name],
                        int(bad),
                        at.only_category,
                        mask=label if bad else None,
                        defect="defect" if bad else "good",
                        crop=(0, top, width, bottom) if pieces > 1 else None,
                        tile=i if pieces > 1 else None,
                    )
                )
    return (with_hold_out(normal, held_out, seed) if held_out else normal) + defective


@indexer("aitex")
def aitex(at: Indexing, *, tile: int = 256, held_out: float = 0.25, seed: int = 42) -> list[Sample]:
    """Fabric strips cut into square tiles of ``tile`` pixels.

    ``NODefect_images/<fabric>/*.png``, ``Defect_images/NNNN_DDD_FF.png`` and
    ``Mask_images/NNNN_DDD_FF_mask*.png`` (two masks of one strip are united); each folder may
    be nested once more.  Every tile of a clean strip is normal; of a defective strip the tiles
    with a marked pixel are kept.  A strip without a usable mask is left out and noted, and so
    is a last tile narrower than the others.
    """
    clean, strips, truth = (
        _nested(at.root, n) for n in ("NODefect_images", "Defect_images", "Mask_images")
    )
    if clean is None and strips is None:
        raise NotThisLayout(f"{at.root}/NODefect_images and Defect_images are missing")
    for name, folder in (
        ("NODefect_images", clean),
        ("Defect_images", strips),
        ("Mask_images", truth),
    ):
        if folder is None:
            at.problems.append(
                f"{at.root}: folder {name} is missing; were all three archives extracted?"
            )
    normal: list[Sample] = []
    fabrics = [] if clean is None else [clean, *subfolders(clean).values()]
    for path in (p for fabric in fabrics for p in listed(fabric)):
        normal += [
            at.sample(path, 0, at.only_category, defect="good", crop=c, tile=i)
            for i, c in _cuts(at, path, tile)
        ]
    masks: dict[str, list[str]] = {}
    for path in listed(truth) if truth is not None else ():
        masks.setdefault(re.sub(r"_mask\d*$", "", stem(path).lower()), []).append(path)
    defective: list[Sample] = []
    for path in listed(strips) if strips is not None else ():
        defective += _defective_tiles(at, path, masks.get(stem(path).lower(), []), tile)
    return (with_hold_out(normal, held_out, seed) if held_out else normal) + defective


def _nested(root: Path, name: str) -> Path | None:
    outer = find_folder(root, name)
    return None if outer is None else find_folder(outer, name) or outer


def _cuts(at: Indexing, path: str, tile: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    from zsad.data.images import image_size

    try:
        height, width = image_size(path)
    except DataError as error:
        at.problems.append(str(error))
        return []
    if width % tile:
        at.notes.append(
            f"{at.relative(path)}: its last "
            f"{counted(width % tile, 'column makes', 'columns make')} no whole tile"
        )
    return [(i, (i * tile, 0, (i + 1) * tile, height)) for i in range(width // tile)]


def _defective_tiles(at: Indexing, path: str, masks: list[str], tile: int) -> list[Sample]:
    from zsad.data.images import image_size, mask_values

    name = at.relative(path)
    if not masks:
        at.notes.append(f"{name}: left out, it has no mask")
        return []
    try:
        size = image_size(path)
        read = [mask_values(m) > 0 for m in masks]
    except DataError as error:
        at.problems.append(str(error))
        return []
    if any(m.shape != size for m in read):
        at.notes.append(f"{name}: left out, its mask has another size")
        return []
    code = stem(path).split("_")[1:2]
    samples = []
    for i, (left, top, right, bottom) in _cuts(at, path, tile):
        if any(m[top:bottom, left:right].any() for m in read):
            samples.append(
                at.sample(
                    path,
                    1,
                    at.only_category,
                    mask=masks[0],
                    extra_masks=tuple(masks[1:]),
                    defect=code[0] if code else "defect",
                    crop=(left, top, right, bottom),
                    tile=i,
                )
            )
    if not samples:
        at.notes.append(f"{name}: left out, its mask {os.path.basename(masks[0])} is empty")
    return samples
