"""Example pictures of a cell: what the report shows beside the numbers.

One ``.npz`` per cell below ``<results>/examples/``: for each example a small JPEG, the anomaly
map on the same small grid, the ground-truth mask and the explanations; besides, the curves of
the cell, and small maps of many more pictures (:mod:`zsad.results.gallery`).  Reading needs no
torch and never unpickles.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zsad.errors import DataError, is_out_of_memory
from zsad.io import parse_json
from zsad.io.foreign import refuse_bomb
from zsad.io.names import safe_name
from zsad.results import folder, gallery
from zsad.results.gallery import MapGallery
from zsad.results.records import CellKey
from zsad.types import Explanation

SIDE = 224  # pixels of an example picture
KINDS = ("detected", "missed", "clean", "false alarm")


@dataclass
class Example:
    """``kind``: detected (anomalous, high score), missed (anomalous, low score), clean
    (normal, low score) or false alarm (normal, high score).  ``jpeg``: the picture, ``map``
    [SIDE, SIDE] the raw anomaly map, ``mask`` [SIDE, SIDE] bool or None."""

    uid: str
    kind: str
    label: int
    defect: str
    score: float
    jpeg: bytes
    map: np.ndarray
    mask: np.ndarray | None = None
    explanations: list[Explanation] = field(default_factory=list)


@dataclass
class CellExamples:
    """Everything the report needs of one cell besides its record."""

    examples: list[Example]
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    maps: MapGallery | None = None


def path_of(root: Path, key: CellKey) -> Path:
    """Where the examples of a cell lie."""
    names = [safe_name(n) for n in (key.method, key.dataset, str(key.seed))]
    return root.joinpath("examples", *names, f"{safe_name(key.category)}.npz")


def save(root: Path, key: CellKey, cell: CellExamples) -> Path:
    """Write the examples of a cell atomically.  Raises :class:`CellError` if the disk refuses."""
    arrays: dict[str, np.ndarray] = {}
    meta: list[dict[str, Any]] = []
    for i, example in enumerate(cell.examples):
        arrays[f"jpeg_{i}"] = np.frombuffer(example.jpeg, dtype=np.uint8)
        arrays[f"map_{i}"] = example.map.astype(np.float16)
        if example.mask is not None:
            arrays[f"mask_{i}"] = np.packbits(example.mask)
        meta.append(
            {
                "uid": example.uid,
                "kind": example.kind,
                "label": example.label,
                "defect": example.defect,
                "score": example.score,
                "shape": list(example.map.shape),
                "explanations": [asdict(e) for e in example.explanations],
            }
        )
    small, about = gallery.as_arrays(cell.maps)
    arrays |= small
    head = {"fingerprint": key.fingerprint, "examples": meta, "curves": cell.curves, **about}
    arrays["meta"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    content = _archive(arrays)
    return folder.write(root, path_of(root, key), content)


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As ``np.savez_compressed`` writes them, at the level that is twice as fast and makes files
    of 4 % more; pictures are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, values, allow_pickle=False)
            plain = zipfile.ZIP_STORED if name.startswith("jpeg_") else zipfile.ZIP_DEFLATED
            about = zipfile.ZipInfo(f"{name}.npy")  # no clock: equal examples, equal file
            archive.writestr(about, member.getvalue(), plain, compresslevel=1)
    return buffer.getvalue()


def load(root: Path, key: CellKey) -> CellExamples | None:
    """Read the examples of a cell; None where there are none for the key's fingerprint.

    Raises :class:`DataError` for a broken file.
    """
    path = path_of(root, key)
    if not path.is_file():
        return None
    try:
        refuse_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            head = parse_json(archive["meta"].tobytes(), "meta")
            if head["fingerprint"] != key.fingerprint:
                return None
            examples = [_read(archive, i, meta) for i, meta in enumerate(head["examples"])]
            maps = gallery.of_arrays(archive, head)
    except Exception as error:  # zip, zlib and numpy raise many types
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"{path}: not a readable example file ({error}); delete it and run again"
        ) from None
    return CellExamples(examples, head["curves"], maps)


def remove(root: Path, key: CellKey) -> None:
    """Delete the examples of a cell, if they are those of the key's fingerprint."""
    try:
        found = load(root, key)
    except DataError:  # a broken file belongs to nobody
        return
    if found is not None:
        with folder.lock(root):
            path_of(root, key).unlink(missing_ok=True)


def _read(archive: Mapping[str, np.ndarray], i: int, meta: Mapping[str, Any]) -> Example:
    shape: Sequence[int] = meta["shape"]
    mask = None
    if f"mask_{i}" in archive:
        mask = (
            np.unpackbits(archive[f"mask_{i}"])[: shape[0] * shape[1]].reshape(shape).astype(bool)
        )
    return Example(
        uid=meta["uid"],
        kind=meta["kind"],
        label=meta["label"],
        defect=meta["defect"],
        score=meta["score"],
        jpeg=archive[f"jpeg_{i}"].tobytes(),
        map=archive[f"map_{i}"].astype(np.float32),
        mask=mask,
        explanations=[
            Explanation(**{**e, "region": tuple(e["region"]) if e.get("region") else None})
            for e in meta["explanations"]
        ],
    )
