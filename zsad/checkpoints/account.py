"""What a trained state says about itself.  No torch: a plan must know it before anything loads.

The account lies in the header of a safetensors file, as JSON.  What came after the first format
stands under keys of its own, so that earlier versions read the file as before.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zsad
from zsad.checkpoints.packing import SCALES, packing_of
from zsad.checkpoints.released import Content, ReleasedFile, by_content, recognise
from zsad.errors import DataError, WeightsError
from zsad.io import parse_json
from zsad.io.schema import read

FORMAT = "zsad-checkpoint-1"
ACCOUNT, SOURCE, CONTENTS = "zsad", "zsad.source", "zsad.contents"  # keys of the header
COST = "zsad.cost"
LONGEST_HEADER = 100_000_000  # bytes, as the format's own reader has it


@dataclass(frozen=True)
class TrainedOn:
    """The auxiliary data of a checkpoint.  ``uids``: every image that was seen; none where only
    the dataset is known.  ``dataset``: its name; of several, joined by " + "."""

    dataset: str
    fingerprint: str
    part: str
    variant: str = ""
    categories: tuple[str, ...] = ()
    uids: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of all of them."""
        return tuple(self.dataset.split(" + ")) if self.dataset else ()


@dataclass(frozen=True)
class SourceFile:
    """The released file that a state was imported from, by its content.

    ``said_by``: who says what it was trained on: the ``table`` of released files, the ``user``
    who imported it, or nobody ("").
    """

    name: str
    sha256: str
    git_blob: str
    said_by: Literal["table", "user", ""] = ""


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint says about itself.

    ``identity`` hashes everything that a training depends on (see :mod:`zsad.training`).
    ``backbone_sha256`` is empty for imported official checkpoints: their authors' files do not
    name one.  ``taps``: the features that the state was trained on, as [kind, layer, start].
    ``facts``: figures of the training (:meth:`Method.training_facts`), if any.  ``contents``: the
    pictures that were trained on, by content (:mod:`zsad.data.contents`), in the order of the
    uids.  ``source_file``: of an imported one.  ``revision``: that of the method that trained it.
    ``cost``: of its training: ``batches``, ``seconds`` in them, ``processor``.
    """

    method: str
    config: dict[str, Any]
    backbone: str
    backbone_sha256: str
    taps: tuple[tuple[str, int, int], ...]
    variant: dict[str, Any]
    seed: int = 0
    epochs: int = 0
    source: Literal["trained", "official"] = "trained"
    trained_on: TrainedOn | None = None
    identity: str = ""
    version: str = field(default_factory=lambda: zsad.__version__)
    facts: dict[str, Any] = field(default_factory=dict)
    contents: tuple[str, ...] = ()
    source_file: SourceFile | None = None
    revision: int = 1
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def preset(self) -> str:
        """The preset that the config was resolved from."""
        return str(self.config.get("preset", "default"))

    @property
    def released(self) -> ReleasedFile | None:
        """The row of the released file that it was imported from, if the table holds that."""
        file = self.source_file
        return by_content(Content(file.sha256, file.git_blob)) if file else None

    def header(self) -> dict[str, str]:
        """The account as the texts of a header."""
        fields = dataclasses.asdict(self)
        del fields["contents"], fields["source_file"], fields["cost"]
        if not self.facts:  # a file without any stays readable for earlier versions
            del fields["facts"]
        if self.revision == 1:  # as before revisions were written
            del fields["revision"]
        found = {"format": FORMAT, ACCOUNT: json.dumps(fields, sort_keys=True)}
        if self.source_file is not None:
            found[SOURCE] = json.dumps(dataclasses.asdict(self.source_file), sort_keys=True)
        if self.contents:
            found[CONTENTS] = json.dumps(self.contents)
        if self.cost:
            found[COST] = json.dumps(self.cost, sort_keys=True)
        return found


def of_header(path: Path | str, header: Mapping[str, str]) -> CheckpointMeta | None:
    """The account in the header of a file; None where it is none of ours.

    Raises :class:`WeightsError` for another format, and for an account that cannot be read.
    """
    if ACCOUNT not in header:
        return None
    if header.get("format") != FORMAT:
        raise WeightsError(
            f"checkpoint {path}: format {header.get('format')} is not {FORMAT}; "
            f"use the version of zsad that wrote it, or train again"
        )
    try:
        found = parse_json(header[ACCOUNT], "JSON")
        if isinstance(found, dict):
            if SOURCE in header:
                found["source_file"] = parse_json(header[SOURCE], "JSON")
            if CONTENTS in header:
                found["contents"] = parse_json(header[CONTENTS], "JSON")
            if COST in header:
                found["cost"] = parse_json(header[COST], "JSON")
        return read(CheckpointMeta, found)
    except (ValueError, DataError) as error:  # not JSON, or not what the schema says
        raise WeightsError(
            f"checkpoint {path}: its account of itself cannot be read ({error}); train again"
        ) from None


def account_of(path: Path | str) -> CheckpointMeta | None:
    """The account of a file; None for one that another program wrote.  No tensor is read.

    Raises :class:`WeightsError` for a file that cannot be read, and as :func:`of_header` does.
    """
    try:
        header = _header(Path(path))
    except OSError as error:
        raise WeightsError(
            f"checkpoint {path}: cannot be read ({error.strerror or error})"
        ) from None
    return of_header(path, header)


def numbers_of(path: Path | str) -> int | None:
    """How many numbers a file's tensors hold, told by its header; None for another format.

    Raises :class:`WeightsError` for a file that cannot be read."""
    try:
        held = _whole_header(Path(path))
    except OSError as error:
        raise WeightsError(f"checkpoint {path}: cannot be read ({error.strerror})") from None
    shapes = {
        n: tuple(t["shape"]) for n, t in held.items() if n != "__metadata__" and isinstance(t, dict)
    }
    for name, how in packing_of(path, _texts(held)).tensors.items():
        shapes[name] = how.shape
        shapes.pop(f"{name}{SCALES}", None)
    return sum(math.prod(shape) for shape in shapes.values()) if shapes else None


def _header(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; none of another file."""
    return _texts(_whole_header(path))


def _texts(header: Mapping[str, Any]) -> dict[str, str]:
    texts = header.get("__metadata__")
    return {str(k): str(v) for k, v in texts.items()} if isinstance(texts, dict) else {}


def _whole_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file; empty for another file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            return {}
        head = file.read(length)
    if head[:1] != b"{":
        return {}
    try:
        found = parse_json(head, str(path))
    except (ValueError, DataError):  # damaged: whoever loads it says so
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Origin:
    """What can be told of a weight file before it is loaded.

    ``method``: whose it is, "" if nobody can tell.  ``trained_on``: datasets, () if not known.
    ``hashed``: whether the pictures that it was trained on are known by content.
    """

    path: Path
    method: str = ""
    trained_on: tuple[str, ...] = ()
    part: str = ""
    seed: int | None = None
    hashed: bool = False
    listed: bool = False  # whether every picture that it was trained on is known by name
    released: ReleasedFile | None = None

    def record(self) -> dict[str, Any]:
        """What a record says of a state that came from this file, ready for JSON."""
        found: dict[str, Any] = {"checkpoint": self.path.name, "trained_on": list(self.trained_on)}
        if self.released is not None:
            found["recognised"] = self.released.name
        return found

    @property
    def words(self) -> str:
        """What it is, in words for messages."""
        if self.released is not None:
            name = f"{self.path.name}, recognised as {self.released.name}"
        else:
            name = self.path.name
        if not self.trained_on:
            return f"{name} (what it was trained on is not known)"
        part = f", {self.part} part" if self.part else ""
        return f"{name} (trained on {' + '.join(self.trained_on)}{part})"


def origin_of(path: Path | str) -> Origin:
    """What a file says about itself, and what the table of released files says about it."""
    path = Path(path)
    meta = account_of(path)
    if meta is None:
        row = recognise(path)
        if row is None:
            return Origin(path)
        return Origin(path, row.method, row.trained_on, row.part, released=row)
    data = meta.trained_on
    return Origin(
        path,
        meta.method,
        data.datasets if data else (),
        data.part if data else "",
        meta.seed if meta.source == "trained" else None,
        bool(meta.contents),
        bool(data and data.uids),
        meta.released,
    )
