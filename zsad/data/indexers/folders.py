"""Layouts where the folder alone says what an image is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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
    with_hold_out,
)
from zsad.data.indexers.own_folder import NO_PICTURE, Understood, understand
from zsad.data.lossy import LOSSY_CUT, is_lossy
from zsad.errors import counted
from zsad.types import Sample


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
    folder, truth = find_below(at.root, outer), find_below(at.root, masks)
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


@indexer("folder")
def plain_folder(at: Indexing) -> list[Sample]:
    """A user's own pictures, in every layout that ``indexers/own_folder.py`` understands."""
    return _understood(at, understand(at.root, ignore_masks=at.ignore_masks))


@indexer("own_folder")
def own_folder(
    at: Indexing, *, roles: Mapping[str, str] | None = None, ignore: Sequence[str] = ()
) -> list[Sample]:
    """The same, with what the names of folders do not say: what ``zsad data check --write`` writes.

    ``roles``: folder below the root -> normal, anomalous, train, test, mask, category or ignore.
    ``ignore``: patterns of files that are left out.
    """
    return _understood(at, understand(at.root, roles, ignore, at.ignore_masks))


def _understood(at: Indexing, found: Understood) -> list[Sample]:
    """The samples of what was understood; a picture without a role is a problem."""
    at.account = found.account
    names = at.spec.categories
    if found.categories == [""] and len(names) > 1:
        at.problems.append(
            f"{at.root}: its pictures are those of one category, the definition has "
            f"{len(names)}: {', '.join(names)}"
        )
    # Masks without a picture are among the problems already.
    strays = [e for e in found.account.without_role if not e.reason.startswith(NO_PICTURE)]
    if strays:
        at.problems.append(
            f"{counted(len(strays), 'picture has', 'pictures have')} no role (first: "
            f"{strays[0].path}: {strays[0].reason})"
        )
    at.problems += found.problems
    at.notes += found.notes
    at.masks_of_normal += [
        (str(at.root / mask), str(at.root / picture)) for mask, picture in found.masks_of_normal
    ]
    by_name = {n.casefold(): n for n in names}
    only = at.only_category if found.categories == [""] else ""
    samples: list[Sample] = []
    for p in found.pictures:
        category = only or by_name.get(p.category.casefold())
        if category is None:
            continue
        first, *more = [str(at.root / m) for m in p.masks] or [""]
        sample = at.sample(
            str(at.root / p.path),
            p.label,
            category,
            mask=first or None,
            defect=p.defect,
            split=p.split,
            extra_masks=tuple(more),
        )
        lossy = any(is_lossy(m) for m in (sample.mask, *sample.extra_masks) if m)
        samples.append(replace(sample, mask_threshold=LOSSY_CUT) if lossy else sample)
    unknown = [] if only else [c for c in found.categories if c.casefold() not in by_name]
    if unknown:
        at.notes.append(f"not categories of the definition, left out: {', '.join(unknown)}")
    if not samples and not at.problems:
        raise NotThisLayout(f"no image in {at.root}/normal or {at.root}/anomalous")
    return samples
