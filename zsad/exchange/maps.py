"""The files that hold scores and maps by image id.  No torch.

The id of an image is its path inside its dataset (``bottle/test/broken_large/000.png``), with or
without the ending.  What is read and written:

* a folder: a map per image, ``bottle/test/broken_large/000.tiff`` (``.tif``, ``.npy``), the tree
  that MVTec's evaluation takes, and beside them ``scores.csv``, if there are scores;
* an ``.npz``: ``ids`` [N] text, ``scores`` [N], and ``maps`` [N, H, W] or ``map_0`` ... [H, W];
* a ``.csv`` with the columns ``id`` and ``score``: scores alone.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from zsad.data.images import FORMATS
from zsad.data.indexers.lists import table
from zsad.errors import DataError, counted, few, reason, shown
from zsad.io.foreign import describe_file, refuse_bomb
from zsad.io.names import readable_name
from zsad.types import Sample

SCORES = "scores.csv"
ENDINGS = (*FORMATS["TIFF"], ".npy")  # of maps
ID_COLUMNS = ("id", "uid", "image", "path", "file", "filename")
SCORE_COLUMNS = ("score", "image_score", "anomaly_score", "pred_score")
FIRST = 3  # ids that a message names


@dataclass(frozen=True)
class MapFile:
    """One map [H, W] that lies in a file or an archive.  ``where``: its place, for messages."""

    where: str
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]

    def read(self) -> np.ndarray:
        """The map as float32 [H, W].  Raises :class:`DataError` for what is not finite."""
        try:
            found = np.asarray(self.load())
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.where}: cannot be read ({reason(error)})") from None
        plane: np.ndarray[Any, Any] = found.reshape(plain(found.shape)).astype(np.float32)
        if not np.isfinite(plane).all():
            raise DataError(f"{self.where}: holds NaN or infinity")
        return plane

    def fault(self) -> str:
        """Why the map cannot be used; "" where it can."""
        try:
            self.read()
        except DataError as error:
            return str(error).removeprefix(f"{self.where}: ")
        return ""


@dataclass
class Outside:
    """Scores and maps by image id.  ``strangers``: names that belong to none of the images."""

    scores: dict[str, float] = field(default_factory=dict)
    maps: dict[str, MapFile] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


class Names:
    """Which image a written name means: its id, or its id without the ending where that is one
    image's alone."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._exact: dict[str, str] = {}
        self._loose: dict[str, list[str]] = {}
        for sample in samples:
            self._exact[sample.uid] = self._exact[filed(sample.uid)] = sample.uid
            for name in {bare(sample.uid), bare(filed(sample.uid))}:
                self._loose.setdefault(name, []).append(sample.uid)

    def of(self, name: str) -> str | None:
        """The id of the image that ``name`` means; None where it means none."""
        plain_name = name.replace("\\", "/").removeprefix("./")
        if plain_name in self._exact:
            return self._exact[plain_name]
        found = self._loose.get(plain_name, [])
        return found[0] if len(found) == 1 else None


def bare(uid: str) -> str:
    """An id without the ending of its file."""
    path = PurePosixPath(uid)
    return path.with_suffix("").as_posix() if path.suffix and path.stem else uid


def filed(uid: str) -> str:
    """An id as a path that stays inside its folder and that every file system takes."""
    return "/".join(readable_name(part) for part in uid.split("/"))


def plain(shape: Sequence[int]) -> tuple[int, int]:
    """(H, W) of a shape that may have sides of 1 besides.  Raises ``ValueError``."""
    kept = [side for side in shape if side != 1]
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(kept) != 2:
        raise ValueError(f"a map has height and width, and this one the shape {tuple(shape)}")
    return kept[0], kept[1]


# -------------------------------------------------------------------------------- reading
def read(source: Path, samples: Sequence[Sample]) -> Outside:
    """What ``source`` holds of ``samples``; no map is loaded yet.

    Raises :class:`DataError` for files that cannot be read, and for images of which there are
    several maps or scores, and for maps that are not arrays of numbers and scores that are not
    finite (the first three are named).
    """
    names, found = Names(samples), Outside()
    if source.is_dir():
        _read_folder(source, names, found)
    elif not source.exists():
        raise DataError(f"{source}: no such file or folder")
    elif source.suffix.lower() == ".csv":
        _read_scores(source, names, found)
    elif source.suffix.lower() == ".npz":
        _read_archive(source, names, found)
    else:
        raise DataError(f"{source}: neither a folder, nor an .npz, nor a .csv")
    if not found.maps and not found.scores:
        example = samples[0].uid if samples else ""
        stem = bare(example) if names.of(bare(example)) else example
        other = f"; it holds {shown(found.strangers[0])}" if found.strangers else ""
        raise DataError(
            f"{source}: no map and no score of an image of the dataset{other}; an id looks like "
            f"{shown(example)}, and a map's file like {shown(stem)}.tiff"
        )
    return found


def refuse(what: str, ids: Sequence[str], way_out: str) -> None:
    """Raise :class:`DataError` that counts ``ids`` and names the first three, if there are any."""
    if ids:
        raise DataError(f"{what}: {few(map(shown, ids), FIRST)}; {way_out}")


def _refuse_maps(source: Path, doubled: Sequence[str], wrong: Sequence[str]) -> None:
    """Raise :class:`DataError` for images with several maps, or with a file that is not a map."""
    refuse(f"{source}: several maps of one image", doubled, "leave one of each")
    count = counted(len(wrong), "file is not a map", "files are not maps")
    refuse(f"{source}: {count} of numbers", wrong, "write each as one array [H, W]")


def _read_folder(root: Path, names: Names, found: Outside) -> None:
    doubled: list[str] = []
    wrong: list[str] = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file()):
        name = path.relative_to(root).as_posix()[: -len(path.suffix)]
        uid = names.of(name)
        if uid is None:
            found.strangers.append(name)
        elif uid in found.maps:
            doubled.append(uid)
        else:
            try:
                found.maps[uid] = _map_file(path)
            except ValueError as error:
                wrong.append(f"{uid} ({error})")
    _refuse_maps(root, doubled, wrong)
    if (root / SCORES).is_file():
        _read_scores(root / SCORES, names, found)


def _map_file(path: Path) -> MapFile:
    """The map in a file.  Raises ``ValueError`` that says what it is instead."""
    try:
        if path.suffix.lower() == ".npy":
            lazily = np.load(path, mmap_mode="r", allow_pickle=False)
            return _checked(str(path), lazily.shape, lazily.dtype, lambda: np.array(lazily))
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            shape, dtype, pages = page.shape, page.dtype, len(file.pages)
        if pages != 1 or dtype is None:
            raise ValueError(f"{pages} pages, not one map")
        return _checked(str(path), shape, dtype, lambda: tifffile.imread(path))
    except Exception as error:  # each reader raises types of its own
        raise ValueError(describe_file(path) or reason(error)) from None


def _checked(
    where: str, shape: Sequence[int], dtype: np.dtype[Any], load: Callable[[], np.ndarray]
) -> MapFile:
    if dtype.kind not in "fiub":
        raise ValueError(f"values of type {dtype}, not numbers")
    return MapFile(where, plain(shape), load)


def _read_scores(path: Path, names: Names, found: Outside) -> None:
    try:
        header, rows = table(path)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    lower = [name.casefold() for name in header]
    places = [
        next((lower.index(name) for name in known if name in lower), None)
        for known in (ID_COLUMNS, SCORE_COLUMNS)
    ]
    if None in places:
        raise DataError(
            f"{path}: needs the columns {ID_COLUMNS[0]} and {SCORE_COLUMNS[0]}; it has "
            f"{', '.join(map(shown, header)) or 'none'}"
        )
    at_id, at_score = (place or 0 for place in places)
    entries = []
    for number, row in enumerate(rows, start=2):
        cells = [*row, "", ""]
        entries.append((cells[at_id], cells[at_score], f"{path}, line {number}"))
    _take_scores(path, entries, names, found)


def _read_archive(path: Path, names: Names, found: Outside) -> None:
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            held = {key: archive[key] for key in archive.files}
    except Exception as error:  # zip, zlib and numpy raise many types
        if isinstance(error, DataError):
            raise
        what = describe_file(path) or reason(error)
        raise DataError(f"{path}: not a readable .npz of numbers and text ({what})") from None
    ids = held.get("ids")
    if ids is None or ids.ndim != 1 or ids.dtype.kind not in "US":
        raise DataError(f"{path}: needs an array 'ids' of text; it has {', '.join(held) or 'none'}")
    written = [i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in ids]
    if (scores := held.get("scores")) is not None:
        if scores.reshape(-1).shape != ids.shape or scores.dtype.kind not in "fiub":
            raise DataError(f"{path}: 'scores' has the shape {scores.shape}, 'ids' {ids.shape}")
        entries = [
            (name, str(float(value)), f"{path}, scores[{i}]")
            for i, (name, value) in enumerate(zip(written, scores.reshape(-1)))
        ]
        _take_scores(path, entries, names, found)
    doubled: list[str] = []
    wrong: list[str] = []
    for place, name, plane in _planes(path, held, written):
        uid = names.of(name)
        if uid is None:
            if name not in found.strangers:
                found.strangers.append(name)
        elif uid in found.maps:
            doubled.append(uid)
        else:
            try:
                held_here = partial(np.asarray, plane)
                found.maps[uid] = _checked(place, plane.shape, plane.dtype, held_here)
            except ValueError as error:
                wrong.append(f"{uid} ({place.removeprefix(f'{path}, ')}: {error})")
    _refuse_maps(path, doubled, wrong)


def _planes(
    path: Path, held: Mapping[str, np.ndarray], written: Sequence[str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(place, name, map) of an archive's maps."""
    if (maps := held.get("maps")) is not None:
        if len(maps) != len(written):
            raise DataError(f"{path}: {len(maps)} 'maps' do not fit {len(written)} 'ids'")
        for i, name in enumerate(written):
            yield f"{path}, maps[{i}]", name, maps[i]
        return
    for i, name in enumerate(written):
        if f"map_{i}" in held:
            yield f"{path}, map_{i}", name, held[f"map_{i}"]


def _take_scores(
    path: Path, entries: Iterable[tuple[str, str, str]], names: Names, found: Outside
) -> None:
    """Add scores, given as (name, number in words, place)."""
    doubled: list[str] = []
    wrong: list[str] = []
    for name, text, place in entries:
        uid = names.of(name)
        if uid is None:
            found.strangers.append(name)
            continue
        value = _number(text)
        if not math.isfinite(value):
            wrong.append(f"{uid} ({place.removeprefix(f'{path}, ')}: '{shown(text)}')")
        if uid in found.scores:
            doubled.append(uid)
        found.scores[uid] = value
    refuse(f"{path}: several scores of one image", doubled, "leave one of each")
    count = (
        "a score is not a finite number"
        if len(wrong) == 1
        else f"{len(wrong)} scores are not finite numbers"
    )
    refuse(f"{path}: {count}", wrong, "give a finite number for each")


def _number(text: str) -> float:
    """A score that is written; NaN for what is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


# -------------------------------------------------------------------------------- writing
class MapWriter:
    """Writes a folder of maps with their scores, to be read by :func:`read`.

    A file has the id of its image without the ending, as MVTec's evaluation wants it; where two
    images share that, both keep their endings.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scores: dict[str, float] = {}
        self._owners: dict[str, str] = {}  # id without its ending -> the first image that had it

    def add(self, uid: str, score: float, plane: np.ndarray) -> None:
        """Write one image's map [H, W] as float32; a second one of an id takes the first's place.

        Raises ``OSError`` if the disk refuses.
        """
        import tifffile

        stem = bare(uid)
        owner = self._owners.setdefault(stem, uid)
        if owner != uid:
            shared, own = self._path(stem), self._path(owner)
            if shared.exists():
                shared.rename(own)
        path = self._path(stem if owner == uid and not self._path(uid).exists() else uid)
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.asarray(plane, dtype=np.float32))
        self._scores[uid] = float(score)

    def _path(self, name: str) -> Path:
        return self.root / f"{filed(name)}.tiff"

    def close(self) -> int:
        """Write the scores; return how many images there are."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / SCORES, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow((ID_COLUMNS[0], SCORE_COLUMNS[0]))
            rows.writerows((uid, repr(score)) for uid, score in self._scores.items())
        return len(self._scores)


def pack(folder: Path, target: Path, samples: Sequence[Sample]) -> None:
    """Write the content of a :class:`MapWriter`'s folder as one ``.npz``, a map at a time."""
    found = read(folder, samples)
    ids = list(found.maps)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _member(archive, "ids", np.array(ids, dtype=np.str_))
        _member(archive, "scores", np.array([found.scores[uid] for uid in ids]))
        for i, uid in enumerate(ids):
            _member(archive, f"map_{i}", found.maps[uid].read())


def _member(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
