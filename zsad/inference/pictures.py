"""Pictures without labels: finding them, reading them ahead."""

from __future__ import annotations

import glob
import hashlib
import logging
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zsad.data.images import endings, open_header, read_image
from zsad.data.indexers.mask_names import beside
from zsad.data.indexers.own_folder import understand
from zsad.data.own_outputs import is_own_output
from zsad.errors import DataError, RequestError, counted, few, reason, shown
from zsad.inference.prediction import Prediction
from zsad.io.bounds import BATCH_PIXELS
from zsad.io.names import plain_path, readable_name
from zsad.runtime import pictures as runtime_pictures
from zsad.types import Category, ImageFeatures

log = logging.getLogger(__name__)

BATCH = 8  # pictures that are scored together
READERS = 4  # threads
# How the names of the files end that are written about a picture, and the stem of what is
# written about all of them.
OUTPUTS = ("map.npy", "full-map.npy", "heat.webp", "mask.png", "prompts.webp", "json")
RESERVED = ("calibration",)
# No folder of pictures is called so.
FILES_OF_ALL = ("calibration.json", "results.csv", "results.coco.json", "results.parquet")


# ------------------------------------------------------------------------------- finding
@dataclass(frozen=True)
class Photo:
    """A picture file.  ``stem``: where below the output folder its files go, without ending."""

    path: Path
    stem: Path


MASK, OTHER = "mask", "file that is not a picture"


class _Found(NamedTuple):
    """A file of a word.  ``top``: the folder that it was found through; ``passed_over``: what it
    is, where it is not wanted."""

    path: Path
    top: Path
    passed_over: str = ""


def find(
    words: Iterable[str], out: Path | str | None = None, listed: Iterable[str] = ()
) -> list[Photo]:
    """Files, folders (all pictures below them) and wildcards; each picture once, in that order.

    ``listed``: words of a list, where a missing file is an error only when it is read.
    The files of a picture go below ``out`` by its path inside the folder that is common to all.
    What lies below ``out`` itself is not an input.  Other files of a folder that are not pictures,
    and masks of its pictures, are passed over, and a warning says which: those are the ones of
    :mod:`zsad.data.indexers.own_folder`, as in `zsad bench`.
    Raises :class:`DataError` for a word without a picture, and :class:`RequestError` where
    ``out`` is the folder of the pictures.
    """
    own = plain_path(out) if out is not None else None
    tops: list[Path] = []
    files: dict[Path, Path] = {}
    passed_over: dict[Path, _Found] = {}
    for word, strict in [*((w, True) for w in words), *((w, False) for w in listed)]:
        for one in _expanded(word, strict):
            absolute, folder = plain_path(one.path), plain_path(one.top)
            if own is not None and one.path != Path(word):  # found by a search
                if own == folder and not one.passed_over:
                    raise RequestError(f"--out {out}: is the folder of the pictures; give another")
                if own in absolute.parents and (own == folder or folder in own.parents):
                    continue
            if one.passed_over:
                passed_over.setdefault(absolute, one)
            else:
                files.setdefault(absolute, one.path)
                tops.append(folder)
    _tell_passed_over([one for a, one in passed_over.items() if a not in files])
    if not files:
        return []
    common = Path(os.path.commonpath(tops))
    inside = {absolute: absolute.relative_to(common) for absolute in files}
    taken = [absolute.relative_to(own) for absolute in files if own and own in absolute.parents]
    return [Photo(files[a], stem) for a, stem in zip(files, stems(list(inside.values()), taken))]


# ------------------------------------------------------------------ where files are written
def stems(inside: Sequence[Path], taken: Iterable[Path] = ()) -> list[Path]:
    """Where the files of pictures go, below the output folder and without ending.

    ``inside``: the paths of the pictures in the folder that is common to all; ``taken``: files
    that lie in the output folder and are not to be overwritten.  A picture loses its ending
    where that leaves it a name of its own, keeps it beside a namesake (``nut.png``, ``nut.jpg``),
    and gets a hash of its path where the names still meet, be it only on a disk that makes no
    difference between ``A`` and ``a``.  No two pictures share a file, and no file of a picture
    is one that zsad writes for all (:data:`RESERVED`).
    """
    names = [_names_of(path) for path in inside]
    level = [0] * len(names)  # which of its names a picture has
    folders = {_folded(f) for name in names for f in name[0].parents if f.parts}
    held = folders | {_folded(path) for path in taken}
    refused = {_folded(Path(name)) for name in RESERVED}
    while True:
        chosen = [name[i] for name, i in zip(names, level)]
        keys = [_folded(stem) for stem in chosen]
        lowest: dict[str, int] = {}
        for key, i in zip(keys, level):
            lowest[key] = min(i, lowest.get(key, i))
        count = Counter(keys)
        # Of namesakes, those move on whose name is the least particular.
        wrong = [
            i
            for i, key in enumerate(keys)
            if level[i] + 1 < len(names[i])
            and (
                (count[key] > 1 and level[i] == lowest[key])
                or key in refused
                or any(f"{key}.{ending}" in held for ending in OUTPUTS)
            )
        ]
        if not wrong:
            return chosen
        for i in wrong:
            level[i] += 1


def _names_of(path: Path) -> tuple[Path, Path, Path]:
    """Without ending, with it, and with a hash of the whole path."""
    parts = [readable_name(part) for part in path.parts[:-1]]
    if parts and _folded(Path(parts[0])) in FILES_OF_ALL:
        parts[0] = parts[0].replace(".", "%2E")
    folder = Path(*parts)
    short = readable_name(path.stem or path.name)
    mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return folder / short, folder / readable_name(path.name), folder / f"{short}-{mark}"


def _folded(path: Path) -> str:
    """Paths that some file system takes for the same one are the same text."""
    return unicodedata.normalize("NFKC", path.as_posix()).casefold()


def _expanded(word: str, strict: bool) -> Iterator[_Found]:
    """The files of a word: all that is named, and of a folder what is a picture."""
    path = Path(word)
    if not strict and not _can_be_asked(path):  # an odd line of a list: the picture's own error
        yield _Found(path, path.parent)
    elif path.is_dir():
        yield from _below(path, strict)
    elif path.is_file() or not strict:
        yield _Found(path, path.parent)
    elif glob.has_magic(word):
        matches = [Path(p) for p in sorted(glob.glob(word, recursive=True)) if Path(p).is_file()]
        if not matches:
            raise DataError(f"{word}: no file matches")
        yield from (_Found(p, p.parent, "" if not is_own_output(p) else OTHER) for p in matches)
    elif "://" in word:
        raise DataError(f"{word}: an address; save the picture, and give its file or folder")
    elif path.is_symlink():
        raise DataError(f"{path}: a link that leads to no file or folder")
    elif os.path.lexists(path):
        raise DataError(f"{path}: neither a file nor a folder")
    else:
        raise DataError(f"{path}: no such file or folder")


def _below(home: Path, strict: bool) -> Iterator[_Found]:
    """The files of a folder, by the rule that says what they are for `zsad bench`."""
    found = understand(home)
    pictures = {p for p in found.candidates if p not in found.mask_of}
    if strict and not pictures:
        raise DataError(f"{home}: no pictures there ({', '.join(endings())})")
    unlabelled = {e.path for e in found.account.entries if e.role == "no role"} & pictures
    # Where no folder says what is a defect, nobody knows whether these are masks.
    doubtful = {m: p for m, (_, p) in beside(sorted(unlabelled)).items() if p}
    if doubtful:
        mask, picture = next(iter(doubtful.items()))
        log.warning(
            "%s: %s named like the mask of a picture beside it (first: %s, of %s), and scored as "
            "any other; give the pictures by their names to leave masks out",
            shown(home),
            counted(len(doubtful), "picture is", "pictures are"),
            shown(mask),
            shown(picture),
        )
    for inside in sorted((e.path for e in found.account.entries), key=PurePosixPath):
        what = "" if inside in pictures else MASK if inside in found.mask_of else OTHER
        yield _Found(home / inside, home, what)


def _can_be_asked(path: Path) -> bool:
    """Whether the system takes the name at all: not with a zero byte, or far too long."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _tell_passed_over(found: Sequence[_Found]) -> None:
    """Say in one line each how many files of the folders are masks, and how many are not pictures;
    name the first three."""
    for what, many in ((MASK, "masks"), (OTHER, "files that are not pictures")):
        names = [shown(one.path) for one in found if one.passed_over == what]
        if names:
            log.warning(
                "passed over %s: %s; give a file by its name to have it read",
                f"a {what}" if len(names) == 1 else f"{len(names)} {many}",
                few(names),
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


class Reading(NamedTuple):
    """How pictures are read.  ``bits``: that deep files use, such as 12 of 16; 0: as many as they
    hold.  ``stored``: in the mode that they have, and not as RGB."""

    bits: int = 0
    stored: bool = False


AS_RGB = Reading()


def read_ahead(
    items: Sequence[Any],
    keep_errors: bool = False,
    size: int = BATCH,
    how: Reading = AS_RGB,
) -> Iterator[PictureBatch]:
    """Batches of at most ``size`` items, the next one read while the last one is used where both
    have no more pixels than :data:`zsad.io.bounds.BATCH_PIXELS`.

    What cannot be read is an error of its own picture with ``keep_errors``, whatever a decoder
    raises; else it ends the reading (:class:`DataError`).
    """
    with ThreadPoolExecutor(READERS, thread_name_prefix="zsad-photos") as pool:
        plan = _planned(items, size)

        def begin(planned: tuple[range, int] | None) -> _Coming | None:
            if planned is None:
                return None
            tasks = [pool.submit(open_picture, items[row], how) for row in planned[0]]
            return _Coming(*planned, tasks)

        coming = begin(next(plan, None))
        while coming is not None:
            now, following = coming, next(plan, None)
            fits = following and now.pixels + following[1] <= BATCH_PIXELS.value()
            coming = begin(following) if fits else None
            yield now.batch(items, keep_errors)
            del now  # its pictures, before others are decoded
            if not fits:
                coming = begin(following)


def _planned(items: Sequence[Any], size: int) -> Iterator[tuple[range, int]]:
    """The rows of each batch and its pixels: at most ``size`` pictures, and no more pixels than
    :data:`zsad.io.bounds.BATCH_PIXELS` unless one picture alone has them."""
    most, start, total = BATCH_PIXELS.value(), 0, 0
    for row, item in enumerate(items):
        own = _pixels(item)
        if row > start and (row - start == size or total + own > most):
            yield range(start, row), total
            start, total = row, 0
        total += own
    if start < len(items):
        yield range(start, len(items)), total


def _pixels(item: Any) -> int:
    """Width x height of a picture that is to be read, by its header."""
    if isinstance(item, Image.Image):
        return item.width * item.height
    if isinstance(item, np.ndarray):
        return math.prod(item.shape[:2])
    if not isinstance(item, (str, Path)) or "://" in str(item):
        return 0
    try:
        with open_header(str(item)) as picture:
            return picture.width * picture.height
    except Exception:  # whatever a decoder raises: reading it will say so
        try:  # what Pillow cannot read and tifffile can: rarely less than a byte for a pixel
            return os.stat(item).st_size
        except (OSError, ValueError):
            return 0


@dataclass
class _Coming:
    """A batch whose pictures are being decoded."""

    rows: range
    pixels: int
    futures: list[Future[Image.Image]]

    def batch(self, items: Sequence[Any], keep_errors: bool) -> PictureBatch:
        """Wait for the pictures, and give them away."""
        batch = PictureBatch([], [], [], [])
        for row in self.rows:
            path = str(items[row]) if isinstance(items[row], (str, Path)) else None
            try:
                picture = self.futures.pop(0).result()
            except RequestError:
                raise
            except (Exception, SystemExit) as error:  # of a decoder: it costs its picture
                if not keep_errors:
                    raise
                batch.errors[row] = failed(path, reason(error))
                continue
            batch.rows.append(row)
            batch.paths.append(path)
            batch.pictures.append(picture)
            batch.sizes.append((picture.height, picture.width))
        return batch


def open_picture(item: Any, how: Reading = AS_RGB) -> Image.Image:
    """A path, a PIL image or an array as an RGB picture, or in the mode that it has."""
    if isinstance(item, (str, Path)):
        return read_image(str(item), bits=how.bits, stored=how.stored)
    return runtime_pictures.open_picture(item, how.stored)


def failed(path: str | None, error: str) -> Prediction:
    """The prediction of a picture that has none."""
    return Prediction(math.nan, None, path=path, error=error)
