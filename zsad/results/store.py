"""The results store: one record per cell, written atomically; tables read nothing else.

::

    <root>/manifest.json                                        what ran: versions, configs, hashes
    <root>/cells/<method>/<dataset>/<seed>/<category>.json      the newest record of the cell
    <root>/cells/<method>/<dataset>/<seed>/<category>@<f>.json  older ones, by fingerprint
    <root>/scores/<same>.parquet                                image scores of the record
    <root>/failures/<same>.json                                 why a cell has no record

A record belongs to a fingerprint: the hash of all that changes its numbers.  A cell computed
again under another fingerprint (another backbone, another temperature) does not destroy the
earlier record.  Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from zsad.errors import CellError, DataError, Withheld, ZsadError, counted, is_out_of_memory
from zsad.io import atomic_write_bytes, read_json, write_json
from zsad.io.environment import concealed
from zsad.io.names import PLAIN, safe_name
from zsad.io.schema import SchemaError, read
from zsad.results import folder
from zsad.results.records import CellKey, CellRecord

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
T = TypeVar("T")

ROUNDING = 1e-6  # beyond 0 and 1, of metrics
SCORE_COLUMNS = ("uid", "label", "defect", "score", "path")


class StoredCell(NamedTuple):
    """A record with its place in the store.  ``written``: seconds since 1970; ``current``:
    the newest of its cell."""

    record: CellRecord
    path: Path
    written: float
    current: bool


@dataclass(frozen=True)
class Failure:
    """Why the last attempt at a cell left no record.  ``kind``: the class name of the error."""

    method: str
    dataset: str
    category: str
    seed: int
    fingerprint: str
    error: str
    kind: str


def key_of(record: CellRecord) -> CellKey:
    """Return the key of a record."""
    return CellKey(record.method, record.dataset, record.category, record.seed, record.fingerprint)


class ResultStore:
    """Records, image scores and failures below one folder.

    Several processes may use the same folder at once.  A broken file never stops a run: it
    counts as absent and is listed by :meth:`broken`.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    # ------------------------------------------------------------------------- records
    def has(self, key: CellKey) -> bool:
        """True if a whole record with the key's fingerprint is stored."""
        return self._find(key) is not None

    def get(self, key: CellKey) -> CellRecord:
        """Return the record.  Raises :class:`DataError` if :meth:`has` is false."""
        found = self._find(key)
        if found is None:
            raise DataError(f"{self._path(key)}: no record with fingerprint {key.fingerprint}")
        return found.record

    def written(self, key: CellKey) -> float | None:
        """When the record of :meth:`get` was stored, in seconds since 1970; None without one."""
        found = self._find(key)
        return None if found is None else found.written

    def put(
        self,
        record: CellRecord,
        scores: pd.DataFrame | Mapping[str, Iterable[Any]] | None = None,
    ) -> Path:
        """Store a record (and its image scores, first), and forget the cell's failure.

        ``scores`` has the columns uid, label, defect, score, path (relative to the dataset).
        Raises :class:`CellError` if the disk refuses; the store stays whole.
        """
        key = key_of(record)
        path = self._path(key)
        content = _score_bytes(scores) if scores is not None else None
        try:
            with self._lock():
                self._set_aside(key)
                target = self._scores_path(path)
                if content is not None:
                    atomic_write_bytes(target, content)
                else:
                    target.unlink(missing_ok=True)
                write_json(path, concealed({**_plain(record), "written": self._now(key)}))
                self._drop_aside(key)
        except OSError as error:
            raise folder.refused(path, error) from error
        self.clear_failure(key)
        return path

    def promote(self, key: CellKey) -> None:
        """Make an earlier record of the cell its newest again; no record: do nothing."""
        if not self._path(key, fingerprint=key.fingerprint).exists():
            return
        with self._lock():  # looked for within it: another process may have promoted it meanwhile
            found = self._find(key)
            if found is None:
                return
            if not found.current:
                self._set_aside(key)
                target = self._path(key)
                if (scores := self._scores_path(found.path)).exists():
                    # a copy: whoever is killed here leaves the earlier record with its scores
                    atomic_write_bytes(self._scores_path(target), scores.read_bytes())
                write_json(target, {**_plain(found.record), "written": self._now(key)})
            self._drop_aside(key)

    def scores(self, key: CellKey) -> pd.DataFrame | None:
        """Return the image scores of a stored cell, or None if it has none."""
        found = self._find(key)
        if found is None:
            return None
        # the second place: who was killed while it set the record aside had moved its scores
        places = (found.path, self._path(key, fingerprint=key.fingerprint))
        path = next((p for p in map(self._scores_path, places) if p.exists()), None)
        if path is None:
            return None
        import pandas as pd
        import pyarrow.parquet

        images = found.record.n_normal + found.record.n_anomalous
        try:
            # A file of a few hundred bytes can claim a thousand million equal rows.
            if (rows := pyarrow.parquet.read_metadata(path).num_rows) > images:
                raise ValueError(f"{counted(rows, 'row')} for {counted(images, 'image')}")
            frame = pd.read_parquet(path)
        except Exception as error:  # arrow raises many types
            if is_out_of_memory(error):
                raise
            raise DataError(f"{path}: cannot be read ({error}); run the cell again") from None
        if not set(SCORE_COLUMNS) <= set(frame.columns):
            raise DataError(f"{path}: not the image scores of a cell; run the cell again")
        return frame

    def cells(self) -> Iterator[StoredCell]:
        """Yield every whole record with its place, sorted by path; broken files are logged."""
        for path in self._files("cells"):
            try:
                record, written = _read_record(path)
            except DataError as error:
                log.warning("skipped: %s", error)
                continue
            yield StoredCell(record, path, written, "@" not in path.name)

    def records(self) -> Iterator[CellRecord]:
        """Yield the newest record of every cell, sorted by path; broken files are logged."""
        return (cell.record for cell in self.cells() if cell.current)

    def remove(self, cell: StoredCell) -> None:
        """Delete a record with its image scores; the others of its cell stay."""
        with self._lock():
            cell.path.unlink(missing_ok=True)  # the record first: without it the scores are nothing
            self._scores_path(cell.path).unlink(missing_ok=True)

    def broken(self) -> list[Path]:
        """Return the record files that cannot be read, sorted."""
        found = []
        for path in self._files("cells"):
            try:
                _read_record(path)
            except DataError:
                found.append(path)
        return found

    # ------------------------------------------------------------------------ failures
    def fail(self, key: CellKey, error: str | BaseException, kind: str = "") -> None:
        """Remember why a cell failed.  Never raises: a full disk is logged."""
        kind = kind or (type(error).__name__ if isinstance(error, BaseException) else "error")
        failure = Failure(
            key.method, key.dataset, key.category, key.seed, key.fingerprint, str(error), kind
        )
        path = self._path(key, "failures")
        try:
            write_json(path, concealed(asdict(failure)))
        except OSError as problem:
            log.warning("%s: cannot be written (%s)", path, problem.strerror or problem)

    def clear_failure(self, key: CellKey) -> None:
        """Forget the failure of a cell, if there is one."""
        self._path(key, "failures").unlink(missing_ok=True)

    def forget(self, failure: Failure) -> None:
        """Forget a failure that :meth:`failures` returned."""
        names = (failure.method, failure.dataset, failure.category)
        self.clear_failure(CellKey(*names, failure.seed))

    def failures(self) -> list[Failure]:
        """Return all remembered failures, sorted by path."""
        found = []
        for path in self._files("failures"):
            try:
                found.append(_whole(Failure, read_json(path)))
            except (ZsadError, SchemaError):
                log.warning("skipped: %s is not a whole failure record", path)
        return found

    # ------------------------------------------------------------------------ manifest
    def write_manifest(self, run: Mapping[str, Any]) -> Path:
        """Add a run (a mapping with a key ``id``) to the manifest, or replace it by its id.

        Raises :class:`CellError` if the disk refuses; the earlier manifest stays.
        """
        path = self.root / "manifest.json"
        try:
            with self._lock():
                runs = {r["id"]: r for r in self.manifest()["runs"]}
                runs[str(run["id"])] = concealed({**run, "id": str(run["id"])})
                return write_json(path, {"format": 1, "runs": [*runs.values()]})
        except Withheld as error:
            raise CellError(f"{error}; it is not replaced, fix this first") from None
        except OSError as error:
            raise folder.refused(path, error) from error

    def manifest(self) -> dict[str, Any]:
        """Return ``{"format": 1, "runs": [...]}``, oldest run first.

        Raises :class:`zsad.errors.Withheld` where the system does not give the file.
        """
        path = self.root / "manifest.json"
        if not path.exists():
            return {"format": 1, "runs": []}
        try:
            found = read_json(path)
            return {"format": 1, "runs": [dict(r, id=str(r["id"])) for r in found["runs"]]}
        except Withheld:
            raise
        except (DataError, KeyError, TypeError, ValueError) as error:
            log.warning("%s: not a whole manifest (%s); a new one is begun", path, error)
            return {"format": 1, "runs": []}

    # -------------------------------------------------------------------------- places
    def _path(self, key: CellKey, kind: str = "cells", fingerprint: str = "") -> Path:
        tail = f"@{safe_name(fingerprint)}" if fingerprint else ""
        place = self.root / kind / safe_name(key.method) / safe_name(key.dataset) / str(key.seed)
        category = safe_name(key.category, PLAIN.replace("@", ""))
        return place / f"{category}{tail}.json"

    def _scores_path(self, record: Path) -> Path:
        inside = record.relative_to(self.root / "cells")
        return (self.root / "scores" / inside).with_name(inside.name[: -len("json")] + "parquet")

    def _files(self, kind: str) -> list[Path]:
        return sorted(
            p for p in (self.root / kind).glob("*/*/*/*.json") if not p.name.startswith(".")
        )

    def _lock(self) -> Any:
        return folder.lock(self.root)

    def _find(self, key: CellKey) -> StoredCell | None:
        for path in (self._path(key), self._path(key, fingerprint=key.fingerprint)):
            try:
                record, written = _read_record(path)
            except DataError:
                continue
            if key_of(record) == key:  # a file that was moved or changed is of another cell
                return StoredCell(record, path, written, "@" not in path.name)
        return None

    def _drop_aside(self, key: CellKey) -> None:
        """Remove what lies aside under the fingerprint of the newest record: a process that was
        killed while it made that one the newest leaves both."""
        aside = self._path(key, fingerprint=key.fingerprint)
        self._scores_path(aside).unlink(missing_ok=True)  # first: by the record it is known again
        aside.unlink(missing_ok=True)

    def _now(self, key: CellKey) -> float:
        """The time, but later than that of every record of the cell: clocks are set back."""
        path = self._path(key)
        times = [time.time()]
        for other in path.parent.glob(f"{glob.escape(path.stem)}@*.json"):
            with contextlib.suppress(DataError):
                times.append(_read_record(other)[1] + 1e-3)
        with contextlib.suppress(DataError):
            times.append(_read_record(path)[1] + 1e-3)
        return max(times)

    def _set_aside(self, key: CellKey) -> None:
        """Move the newest record to its fingerprint's name, unless it is the key's own."""
        path = self._path(key)
        try:
            held, _ = _read_record(path)
        except Withheld as error:
            raise CellError(f"{error}; it is not replaced, fix this first") from None
        except DataError:
            return  # absent or broken: it will be overwritten
        if str(self._path(key_of(held))).casefold() != str(path).casefold():
            return  # a record that was moved here, or changed by hand: as broken as one cut off
        if (held.method, held.dataset, held.category) != (key.method, key.dataset, key.category):
            raise CellError(
                f"{path}: is the record of {held.method}, {held.dataset}, {held.category}, whose "
                "name this file system takes for the same one; give --results elsewhere"
            )
        if held.fingerprint in ("", key.fingerprint):
            return
        aside = self._path(key, fingerprint=held.fingerprint)
        if (scores := self._scores_path(path)).exists():
            os.replace(scores, self._scores_path(aside))
        os.replace(path, aside)


# ------------------------------------------------------------------------------ content
def _plain(record: CellRecord) -> dict[str, Any]:
    """The record as a mapping; a metric that is not finite is None and has a reason."""
    content = asdict(record)
    for name, value in record.metrics.items():
        if value is None or not math.isfinite(value):
            content["metrics"][name] = None
            content["undefined"].setdefault(name, "the value is not a finite number")
    return content


@dataclass(frozen=True)
class _Info:
    """What tables and reports rely on in the ``info`` of a record, where it is there."""

    title: str | None = None
    method: str | None = None
    group: str | None = None
    preset: str | None = None
    protocol: str | None = None
    variant: str | None = None
    dataset_fingerprint: str | None = None
    backbone: str | None = None
    weights_source: str | None = None
    weights_sha256: str | None = None
    weights_grade: str | None = None
    weights_name: str | None = None
    banner: str | None = None
    precision: str | None = None
    mask_resize: str | None = None
    shots: int | None = None
    limit: int | None = None
    image_size: int | None = None
    revision: int | None = None
    trained_on: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    method_info: dict[str, Any] | None = None
    boxes: dict[str, Any] | None = None
    skipped: list[str] | None = None
    metric_bounds: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Written:
    """What the file of a record holds besides the record."""

    written: float = 0.0


def _whole(kind: type[T], raw: Any) -> T:
    """Read a record or a failure, of which no key may be missing.  Raises ``SchemaError``."""
    found = read(kind, raw, others=True)
    for f in fields(cast("Any", kind)):
        if f.name not in raw:
            raise SchemaError(f"key '{f.name}' is missing")
    for name in ("method", "dataset", "category"):
        if not raw[name]:
            raise SchemaError(f"{name} is empty")
    return found


def _read_record(path: Path) -> tuple[CellRecord, float]:
    raw = read_json(path)
    try:
        record = _whole(CellRecord, raw)
        read(_Info, record.info, prefix="info.", others=True)
        numbers = [*record.metrics.values(), *record.seconds.values()]
        if not all(v is None or math.isfinite(v) for v in numbers):
            raise SchemaError("a metric or a time is not a finite number")
        for name, value in record.metrics.items():
            if value is not None and not -ROUNDING <= value <= 1 + ROUNDING:
                raise SchemaError(f"{name} {value:g} does not lie in 0..1")
        if min(record.n_normal, record.n_anomalous) < 0:
            raise SchemaError("a number of images is negative")
        return record, read(_Written, raw, others=True).written
    except SchemaError as error:
        raise DataError(f"{path}: not a whole record ({error}); run the cell again") from None


def _characters(value: Any) -> Any:
    """Text without what UTF-8 cannot hold: a byte of a name that is not UTF-8 is written out."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _score_bytes(scores: pd.DataFrame | Mapping[str, Iterable[Any]]) -> bytes:
    import pandas as pd

    if isinstance(scores, pd.DataFrame):
        frame = scores
    else:
        columns = {name: [_characters(v) for v in column] for name, column in scores.items()}
        frame = pd.DataFrame(columns)
    missing = [c for c in SCORE_COLUMNS if c not in frame.columns]
    if missing:
        raise ValueError(f"image scores lack the columns {', '.join(missing)}")
    absolute = [p for p in frame["path"].dropna() if os.path.isabs(str(p))]
    if absolute:
        raise ValueError(f"image scores must hold paths relative to the dataset, not {absolute[0]}")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
