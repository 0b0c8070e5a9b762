"""Pictures without labels: finding them, reading them ahead."""

from __future__ import annotations

import glob
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zsad.data.images import endings, is_picture, read_image
from zsad.errors import DataError, RequestError
from zsad.inference.prediction import Prediction
from zsad.types import Category, ImageFeatures

log = logging.getLogger(__name__)

BATCH = 8  # pictures that are scored together
READERS = 4  # threads


# ------------------------------------------------------------------------------- finding
@dataclass(frozen=True)
class Photo:
    """A picture file.  ``stem``: where below the output folder its files go, without ending."""

    path: Path
    stem: Path


def find(
    words: Iterable[str], out: Path | str | None = None, listed: Iterable[str] = ()
) -> list[Photo]:
    """Files, folders (all pictures below them) and wildcards; each picture once, in that order.

    ``listed``: words of a list, where a missing file is an error only when it is read.
    The files of a picture go below ``out`` by its path inside the folder that is common to all.
    What lies below ``out`` itself is not an input.  Other files of a folder that are not pictures
    (see :func:`zsad.data.images.is_picture`) are passed over, and a warning says which.
    Raises :class:`DataError` for a word without a picture, and :class:`RequestError` where
    ``out`` is the folder of the pictures.
    """
    own = Path(out).absolute() if out is not None else None
    tops: list[Path] = []
    files: dict[Path, Path] = {}
    passed_over: dict[Path, Path] = {}
    for word, strict in [*((w, True) for w in words), *((w, False) for w in listed)]:
        for path, top, wanted in _expanded(word, strict):
            absolute, folder = path.absolute(), top.absolute()
            if own is not None and path != Path(word):  # found by a search
                if own == folder:
                    raise RequestError(f"--out {out}: is the folder of the pictures; give another")
                if own in absolute.parents and folder in own.parents:
                    continue
            if wanted:
                files.setdefault(absolute, path)
                tops.append(folder)
            else:
                passed_over.setdefault(absolute, path)
    _tell_passed_over([path for a, path in passed_over.items() if a not in files])
    if not files:
        return []
    common = Path(os.path.commonpath(tops))
    inside = {absolute: absolute.relative_to(common) for absolute in files}
    same = Counter(p.with_suffix("") for p in inside.values())
    return [
        # "nut.png" and "nut.jpg" keep their endings, or one would overwrite the other
        Photo(path, inside[a].with_suffix("") if same[inside[a].with_suffix("")] < 2 else inside[a])
        for a, path in files.items()
    ]


def _expanded(word: str, strict: bool) -> Iterator[tuple[Path, Path, bool]]:
    """Files of a word, each with the folder that it was found through, and whether it is wanted:
    all that is named, and of a folder what is a picture."""
    path = Path(word)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file())
        wanted = [is_picture(p.relative_to(path)) for p in found]
        if strict and not any(wanted):
            raise DataError(f"{path}: no pictures there ({', '.join(endings())})")
        yield from ((p, path, w) for p, w in zip(found, wanted))
    elif path.is_file() or not strict:
        yield path, path.parent, True
    elif glob.has_magic(word):
        matches = [Path(p) for p in sorted(glob.glob(word, recursive=True)) if Path(p).is_file()]
        if not matches:
            raise DataError(f"{word}: no file matches")
        yield from ((p, p.parent, True) for p in matches)
    else:
        raise DataError(f"{path}: no such file or folder")


def _tell_passed_over(paths: Sequence[Path]) -> None:
    """Say in one line how many files of the folders are not pictures, and name the first three."""
    if not paths:
        return
    # A name may hold a line break.
    names = [text if text.isprintable() else ascii(text) for text in map(str, paths[:3])]
    log.warning(
        "passed over %s: %s%s; give a file by its name to have it read",
        "a file that is not a picture"
        if len(paths) == 1
        else f"{len(paths)} files that are not pictures",
        ", ".join(names),
        f" and {len(paths) - 3} more" if len(paths) > 3 else "",
    )


# ------------------------------------------------------------------------------- reading
@dataclass
class PictureBatch:
    """Pictures that are scored together: their ``rows`` in the list of all, their own sizes
    (height, width), and predictions that are errors already."""

    rows: list[int]
    paths: list[str | None]
    pictures: list[Image.Image]
    sizes: list[tuple[int, int]]
    errors: dict[int, Prediction] = field(default_factory=dict)
    features: ImageFeatures | None = None

    def in_order(self, found: dict[int, Prediction]) -> Iterator[Prediction]:
        """The predictions and errors of the batch as the pictures were given."""
        everything = {**self.errors, **found}
        return (everything[row] for row in sorted(everything))

    def singles(self) -> list[PictureBatch]:
        """Batches of one picture each; errors stay with this one."""
        return [replace(self._part([i]), features=None) for i in range(len(self.rows))]

    def parts(self, categories: Sequence[Category]) -> list[PictureBatch]:
        """Batches of one category each, of ``categories`` by row; errors stay with this one."""
        places: dict[str, list[int]] = {}
        for i, row in enumerate(self.rows):
            places.setdefault(categories[row].key, []).append(i)
        return [self._part(chosen) for chosen in places.values()]

    def _part(self, places: list[int]) -> PictureBatch:
        return replace(
            self,
            rows=[self.rows[i] for i in places],
            paths=[self.paths[i] for i in places],
            pictures=[self.pictures[i] for i in places] if self.pictures else [],
            sizes=[self.sizes[i] for i in places],
            errors={},
            features=None if self.features is None else self.features.select(places),
        )


def read_ahead(
    items: Sequence[Any], keep_errors: bool = False, size: int = BATCH
) -> Iterator[PictureBatch]:
    """Batches of ``size`` items, the next one read while the last one is used.

    Raises :class:`DataError` for what cannot be read, unless ``keep_errors``.
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="zsad-photos") as pool:

        def begin(start: int) -> list[Future[Image.Image]]:
            return [pool.submit(open_picture, item) for item in items[start : start + size]]

        coming = begin(0)
        for start in range(0, len(items), size):
            futures, coming = coming, begin(start + size)
            batch = PictureBatch([], [], [], [])
            for row, future in enumerate(futures, start):
                path = str(items[row]) if isinstance(items[row], (str, Path)) else None
                try:
                    picture = future.result()
                except DataError as error:
                    if not keep_errors:
                        raise
                    batch.errors[row] = failed(path, str(error))
                    continue
                batch.rows.append(row)
                batch.paths.append(path)
                batch.pictures.append(picture)
                batch.sizes.append((picture.height, picture.width))
            yield batch


def open_picture(item: Any) -> Image.Image:
    """A path, a PIL image or an array as an RGB picture."""
    if isinstance(item, Image.Image):
        return item.convert("RGB")
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim not in (2, 3):
            raise RequestError(
                f"an array picture must be uint8 [H, W] or [H, W, 3], not {item.dtype} {item.shape}"
            )
        return Image.fromarray(item).convert("RGB")
    if isinstance(item, (str, Path)):
        return read_image(str(item))
    raise RequestError(
        f"cannot read a picture from a {type(item).__name__}; give a path, a PIL image or an array"
    )


def failed(path: str | None, error: str) -> Prediction:
    """The prediction of a picture that has none."""
    return Prediction(math.nan, None, path=path, error=error)
