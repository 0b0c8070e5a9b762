"""Small pictures and maps of a category, so that a page can show every picture by every method.

The maps of a cell lie in its file of examples (:mod:`zsad.results.examples`).  The pictures are the
same for all methods: one ``.npz`` per category below ``<results>/gallery/``, made once.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsad.data.images import read_image
from zsad.errors import DataError, ZsadError, is_out_of_memory
from zsad.io import parse_json
from zsad.io.names import safe_name
from zsad.results import folder
from zsad.types import Sample

log = logging.getLogger(__name__)

SIDE = 128  # pixels of a picture
MAP_SIDE = 28  # of a map: finer than most patch grids of a small picture
MOST = 64  # pictures of a category
QUALITY = 75


@dataclass
class MapGallery:
    """The maps of some pictures by one method: ``levels`` [N, h, w] uint8, of which 0 stands for
    the value ``low`` and 255 for ``high``."""

    uids: list[str]
    levels: NDArray[np.uint8]
    low: float
    high: float

    @classmethod
    def of(cls, uids: Sequence[str], maps: Sequence[NDArray[Any]]) -> MapGallery:
        """Take maps [h, w] of one size in."""
        stacked = np.stack([np.asarray(m, np.float32) for m in maps])
        low, high = float(stacked.min()), float(stacked.max())
        scale = 255 / (high - low) if high > low else 0.0
        return cls(list(uids), np.round((stacked - low) * scale).astype(np.uint8), low, high)


def chosen(samples: Sequence[Sample], most: int = MOST) -> list[Sample]:
    """The pictures of a category that are kept: all, or as many of every type of defect and of the
    normal ones as there is room for, in the order of ``samples``."""
    if len(samples) <= most:
        return list(samples)
    kinds: dict[tuple[int, str], list[int]] = {}
    for i, sample in enumerate(samples):
        kinds.setdefault((sample.label, sample.defect), []).append(i)
    taken: list[int] = []
    turn = 0
    while len(taken) < most:
        taken += [rows[turn] for rows in kinds.values() if turn < len(rows)]
        turn += 1
    return [samples[i] for i in sorted(taken[:most])]


# ------------------------------------------------------------------------------ the pictures
def path_of(root: Path, dataset: str, category: str) -> Path:
    """Where the pictures of a category lie."""
    return root / "gallery" / safe_name(dataset) / f"{safe_name(category)}.npz"


def keep(
    root: Path, dataset: str, category: str, fingerprint: str, samples: Sequence[Sample]
) -> None:
    """Store small pictures of ``samples``, unless they are stored for the dataset's
    ``fingerprint``; those that cannot be read are left out.

    Raises :class:`CellError` if the disk refuses.
    """
    wanted = {s.uid: s for s in samples}
    held = load(root, dataset, category, fingerprint)
    missing = [uid for uid in wanted if uid not in held]
    if not missing:
        return
    for uid in missing:
        try:
            held[uid] = _small(wanted[uid])
        except ZsadError as error:
            log.debug("no small picture: %s", error)
    arrays = {f"jpeg_{i}": np.frombuffer(raw, np.uint8) for i, raw in enumerate(held.values())}
    head = {"fingerprint": fingerprint, "uids": list(held)}
    arrays["meta"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    folder.write(root, path_of(root, dataset, category), buffer.getvalue())


def load(root: Path, dataset: str, category: str, fingerprint: str = "") -> dict[str, bytes]:
    """The stored pictures as JPEG, by uid; none of another ``fingerprint``, where one is given,
    and none of a broken file."""
    path = path_of(root, dataset, category)
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            head = parse_json(archive["meta"].tobytes(), "meta")
            if fingerprint and head["fingerprint"] != fingerprint:
                return {}
            return {uid: archive[f"jpeg_{i}"].tobytes() for i, uid in enumerate(head["uids"])}
    except Exception as error:  # zip, zlib and numpy raise many types
        if is_out_of_memory(error):
            raise
        log.warning("%s: not readable (%s); it is made again by the next run", path, error)
        return {}


def _small(sample: Sample) -> bytes:
    picture = read_image(sample.image, sample.crop, sample.bits).convert("RGB")
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


# ------------------------------------------------------------------------- the maps of a cell
def as_arrays(held: MapGallery | None) -> tuple[dict[str, NDArray[np.uint8]], dict[str, Any]]:
    """What a file of examples keeps of the maps: arrays, and what its account says of them."""
    if held is None:
        return {}, {}
    about = {"uids": held.uids, "low": held.low, "high": held.high}
    return {"gallery": held.levels}, {"gallery": about}


def of_arrays(archive: Any, head: dict[str, Any]) -> MapGallery | None:
    """The maps in a file of examples, if it holds any.  Raises :class:`DataError`."""
    if "gallery" not in head:
        return None
    about, levels = head["gallery"], archive["gallery"]
    if levels.dtype != np.uint8 or levels.ndim != 3 or len(levels) != len(about["uids"]):
        raise DataError("its small maps do not fit their names")
    return MapGallery(list(about["uids"]), levels, float(about["low"]), float(about["high"]))
