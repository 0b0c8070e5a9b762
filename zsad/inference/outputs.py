"""Writes what was found in pictures: heat maps, masks, maps, records and a table of all.

======== ==================== ============================================================
kind     file                 what
======== ==================== ============================================================
heat     ``x.heat.webp``      the picture under its map, regions outlined, at most 1024
                              pixels a side
mask     ``x.mask.png``       black and white, of the picture's size
map      ``x.map.npy``        the map at the size at which the model made it, float16
full-map ``x.full-map.npy``   the map at the picture's size, float32
json     ``x.json``           the record: what the line on standard output says
csv      ``results.csv``      one line per picture
page     ``index.html``       all pictures to look at, with ``thumbs/`` beside it
prompts  ``x.prompts.webp``   a heat map for each abnormal prompt of the method, and
         ``prompts.html``     all of them with low-dimensional views
======== ==================== ============================================================

Files for other programs are those of :mod:`zsad.inference.handover`.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsad.data import own_outputs
from zsad.data.images import read_image
from zsad.errors import DataError, RequestError
from zsad.inference import calibration, handover
from zsad.inference.options import chosen
from zsad.inference.page import PredictionPage
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction
from zsad.inference.prompts_page import PromptsPage
from zsad.io import atomic_write_bytes, dump_json
from zsad.io.cells import cell
from zsad.results import heatmaps
from zsad.runtime.thresholds import Thresholds

# What may be wrong with the place of one picture's files; anything else (a full disk) is wrong
# with the output folder.
OWN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP)
KINDS = ("heat", "mask", "map", "full-map", "json", "csv", "page", "prompts")
DEFAULT = ("heat", "mask", "map", "json", "csv", "page")
TABLE = "results.csv"
COLUMNS = (
    "path", "image_score", "anomalous", "marked", "map_max", "regions", "image_threshold",
    "pixel_threshold", "note", "heat", "error",
)  # fmt: skip
QUALITY = 80  # of a heat map


def kinds(text: str | Sequence[str] | None, out: Path | str | None = None) -> tuple[str, ...]:
    """The kinds of files of a comma-separated list.  Raises :class:`RequestError`."""
    if text is None:
        return DEFAULT
    return chosen(text, "--save", "kind of file, kinds of files", KINDS, out)


OF_ALL = (
    TABLE, "index.html", "prompts.html", "calibration.json",
    *(file.name for file in handover.FILES.values()),
)  # fmt: skip


def files_of_all(kinds: Sequence[str], formats: Sequence[str], calibrates: bool) -> set[str]:
    """Which of :data:`OF_ALL` a run writes."""
    said = {"page": "index.html", "prompts": "prompts.html", "csv": TABLE}
    made = {said[kind] for kind in (*kinds, *formats) if kind in said}
    made |= {handover.FILES[name].name for name in formats if name in handover.FILES}
    return made | ({"calibration.json"} if calibrates else set())


class Writer:
    """Writes the files of one run below ``out``; the table of all and their page when it is left.

    ``scale``: the values of the coldest and the hottest colour of every heat map; ``bits``: as
    :class:`zsad.inference.pictures.Reading` has it; ``one_file``: the page holds everything that
    it shows; ``to``: formats of :mod:`zsad.inference.handover`.
    """

    def __init__(
        self,
        out: Path | str,
        save: Sequence[str] = DEFAULT,
        scale: tuple[float, float] | None = None,
        bits: int = 0,
        one_file: bool = False,
        to: Sequence[str] = (),
    ) -> None:
        self.out, self.save, self.scale, self.bits = Path(out), tuple(save), scale, bits
        self._page = (
            PredictionPage(self.out, self._inside, one_file, scale, bits)
            if "page" in save
            else None
        )
        self._prompts = PromptsPage(self.out, self._inside, bits) if "prompts" in save else None
        self._rows: list[dict[str, Any]] = []
        self._table = "csv" in save or "csv" in to
        self._handed = [handover.FILES[name]() for name in to if name in handover.FILES]

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rows:
            if self._table:
                _write(self.out / TABLE, _table(self._rows))
            for file in self._handed:
                _write(self.out / file.name, file.content())
        for page in (self._page, self._prompts):
            if page:
                page.close()

    def _inside(self, path: Path, content: bytes) -> str:
        """Write a file, unless a link leads elsewhere.  Raises as :meth:`put`."""
        if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(self.out)):
            raise DataError(f"--out {path.parent}: a link leads out of {self.out}; remove it")
        return _write(path, content)

    def put(self, found: Prediction, photo: Photo) -> None:
        """Write the files of a picture and fill ``found.files``; of one with an error only its
        row.

        Raises :class:`RequestError` where ``out`` cannot be written, and :class:`DataError` for
        what concerns this picture alone: it is gone by now, or something else lies where its files
        belong.
        """
        if not found.error:
            base = self.out / photo.stem
            for kind, (ending, raw) in self._content(found, photo).items():
                found.files[kind] = self._inside(base.with_name(f"{base.name}.{ending}"), raw)
            if self._prompts and (strip := self._prompts.put(found, photo)):
                found.files["prompts"] = strip
            if "json" in self.save:
                text = base.with_name(f"{base.name}.json")
                found.files["record"] = str(text)
                self._inside(text, (dump_json(found.to_dict()) + "\n").encode())
        if self._page:
            self._page.put(found, photo)
        self._rows.append(row := _row(found))
        for file in self._handed:
            file.put(found, photo, row)

    def _content(self, found: Prediction, photo: Photo) -> dict[str, tuple[str, bytes]]:
        content: dict[str, tuple[str, bytes]] = {}
        assert found.values is not None
        if "heat" in self.save:
            content["heat"] = ("heat.webp", _heat(found, photo, self.scale, self.bits))
        mask = found.mask if "mask" in self.save else None
        if mask is not None:
            content["mask"] = ("mask.png", _mask(mask, found.made_by))
        if "map" in self.save:
            content["map"] = ("map.npy", _npy(_half(found.values)))
        if "full-map" in self.save:
            whole = found.anomaly_map
            assert whole is not None
            content["full-map"] = ("full-map.npy", _npy(whole))
        return content


def save_calibration(
    out: Path | str,
    thresholds: Thresholds,
    made_for: Mapping[str, Any],
    made_by: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``calibration.json``.  Raises :class:`RequestError` where ``out`` cannot be written."""
    path = Path(out) / "calibration.json"
    try:
        return calibration.save(path, thresholds, made_for, made_by)
    except OSError as error:
        raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from None


# -------------------------------------------------------------------------------- content
def _heat(found: Prediction, photo: Photo, scale: tuple[float, float] | None, bits: int) -> bytes:
    buffer = io.BytesIO()
    _ = found.findings  # takes a map of the picture's size: not beside the decoded picture
    picture = found.overlay(read_image(photo.path, bits=bits), scale)
    picture.save(buffer, "WEBP", quality=QUALITY, exif=own_outputs.exif(found.made_by))
    return buffer.getvalue()


def _mask(mask: NDArray[np.bool_], made_by: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    heatmaps.mask(mask).save(buffer, "PNG", pnginfo=own_outputs.png_text(made_by))
    return buffer.getvalue()


def _half(values: NDArray[np.float32]) -> NDArray[np.float16 | np.float32]:
    """Half precision, unless values are too large for it."""
    small = values.astype(np.float16)
    return small if np.isfinite(small).all() else values


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _row(found: Prediction) -> dict[str, Any]:
    if found.error:
        return {"path": found.path, "error": found.error}
    said, limits, findings = found.to_dict(), found.thresholds, found.findings
    return {
        **{name: said.get(name) for name in COLUMNS},
        "regions": None if findings is None else len(findings.regions) + findings.omitted,
        "image_threshold": limits.image if limits else None,
        "pixel_threshold": limits.pixel if limits else None,
        "heat": found.files.get("heat"),
        "error": "",
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8")


def _write(path: Path, content: bytes) -> str:
    try:
        return str(atomic_write_bytes(path, content))
    except OSError as error:
        if error.errno in OWN:
            raise DataError(f"--out {path}: cannot be written ({error.strerror})") from None
        raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from None
