"""Writes what was found in a picture: map, heat map, mask and description."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsad.data.images import read_image
from zsad.errors import DataError, RequestError
from zsad.inference import calibration
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction, Thresholds
from zsad.io import atomic_write_bytes, dump_json
from zsad.results import heatmaps

# What may be wrong with the place of one picture's files; anything else (a full disk) is wrong
# with the output folder.
OWN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP)


def record(found: Prediction) -> dict[str, Any]:
    """What is said about a picture, ready for JSON."""
    if found.error:
        return {"path": found.path, "error": found.error}
    limits = found.thresholds
    return {
        "path": found.path,
        "image_score": found.image_score,
        "anomalous": found.anomalous,
        "marked": None if found.mask is None else float(found.mask.mean()),
        "map_max": float(_map(found).max()),
        "thresholds": asdict(limits) if limits else None,
        "explanations": [asdict(e) for e in found.explanations],
        "files": dict(found.files),
    }


def save(
    found: Prediction, photo: Photo, out: Path | str, scale: tuple[float, float] | None = None
) -> None:
    """Write map (.npy), heat map, mask and description of a picture; fill ``found.files``.

    ``scale``: the values of the coldest and the hottest colour.  Raises :class:`RequestError`
    where ``out`` cannot be written, and :class:`DataError` for what concerns this picture alone:
    it is gone by now, or something else lies where its files belong.
    """
    values = _map(found)
    limit = found.thresholds.pixel if found.thresholds else None
    low, high = scale or heatmaps.span(values, limit)
    heat = heatmaps.overlay(read_image(photo.path), values, low, high)
    content = {"map": ("map.npy", _npy(values)), "heat": ("heat.png", _png(heat))}
    if limit is not None:
        content["mask"] = ("mask.png", _png(heatmaps.mask(values, limit)))
    base = Path(out) / photo.stem
    if not Path(os.path.realpath(base.parent)).is_relative_to(os.path.realpath(out)):
        raise DataError(f"--out {base.parent}: a link leads out of {out}; remove it")
    for kind, (ending, raw) in content.items():
        found.files[kind] = _write(base.with_name(f"{base.name}.{ending}"), raw)
    text = base.with_name(f"{base.name}.json")
    found.files["record"] = str(text)
    _write(text, (dump_json(record(found)) + "\n").encode())


def _map(found: Prediction) -> NDArray[np.float32]:
    """The map of a picture that could be scored.  Raises :class:`DataError` for another."""
    if found.anomaly_map is None:
        raise DataError(f"{found.path}: has no anomaly map; {found.error}")
    return found.anomaly_map


def save_calibration(out: Path | str, thresholds: Thresholds, made_for: Mapping[str, Any]) -> Path:
    """Write ``calibration.json``.  Raises :class:`RequestError` where ``out`` cannot be written."""
    path = Path(out) / "calibration.json"
    try:
        return calibration.save(path, thresholds, made_for)
    except OSError as error:
        raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from None


def _write(path: Path, content: bytes) -> str:
    try:
        return str(atomic_write_bytes(path, content))
    except OSError as error:
        if error.errno in OWN:
            raise DataError(f"--out {path}: cannot be written ({error.strerror})") from None
        raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()
