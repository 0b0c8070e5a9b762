"""What a planned run will take, from what earlier runs took on this machine.  No torch.

Times are those of records in the results folder whose processor is this one's, of the same
backbone, image size and precision; others are never read.  The encoder's pass, which all methods of
a run share, counts once per picture; what a method does besides counts per method and seed.
Trainings are named and not estimated.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zsad.backbones.engines import processor
from zsad.errors import ZsadError, counted
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner.plan import DatasetPlan, Plan
from zsad.runner.request import Request

OWN = ("head", "map", "boxes", "views", "metrics")  # stages of a method, beside the shared ones
SHARED = ("decode", "encode")
FILES = ("cells", "scores", "examples", "gallery")  # what a cell leaves
GPUS = Path("/proc/driver/nvidia/gpus")  # a folder each, where NVIDIA's driver is loaded


def estimate(
    plans: Sequence[Plan], rows: Sequence[Mapping[str, Any]], store: ResultStore
) -> dict[str, Any]:
    """JSON-ready: ``images`` and ``cells`` to do, ``seconds``, ``memory_mib`` and ``disk_mib``
    (None where nothing is stored that tells), ``records`` behind the seconds, ``processor``,
    ``not_included`` (methods without timings and trainings), and all that in words as ``text``.

    ``rows``: of :func:`zsad.runner.conditions.described`, for the same plans.
    """
    here = machine(plans[0].request.device)
    records, strangers = _timed(store, here)
    found: dict[str, Any] = {
        "cells": sum(p.n_todo for p in plans),
        "images": sum(len(d.samples[c]) for p in plans for d in p.datasets for c in _open(d)),
        "processor": here,
    }
    shared: dict[tuple[str, str, str], float] = {}  # backbone, dataset, category: s per image
    own, used, missing = 0.0, set[int](), dict[str, None]()
    conditions = {(r["backbone"], r["method"], r["dataset"]): r for r in rows}
    for plan in plans:
        backbone = plan.request.settings.backbone.name
        seeded = {c.label for c in plan.request.columns if c.seeded}
        for dataset in plan.datasets:
            # where no seed changes anything, one pass fills the cells of all of them
            once = {(n, seed if n in seeded else 0, c) for n, seed, c in dataset.todo}
            for label, _, category in sorted(once):
                row = conditions.get((backbone, label, dataset.name))
                alike = [r for r in records if row is not None and _alike(r, label, row)]
                if not alike:
                    missing[label] = None
                    continue
                used.update(map(id, alike))
                images = len(dataset.samples[category])
                own += images * _typical(alike, OWN) + _per_cell(alike)
                at = (backbone, dataset.name, category)
                shared[at] = max(shared.get(at, 0.0), images * _typical(alike, SHARED))
    training = list(
        dict.fromkeys(r["method"] for r in rows if str(r["does"]).startswith("trains now"))
    )
    found |= {
        "seconds": round(own + math.fsum(shared.values()), 1) if used else None,
        "records": len(used),
        "memory_mib": None if strangers else _memory(store, [p.request for p in plans]),
        "disk_mib": _disk(store, found["cells"]),
        "not_included": {"no timings": list(missing), "trainings": training},
    }
    return {**found, "text": _words(found)}


def machine(device: str = "auto") -> str:
    """What runs are timed on here: the GPU where there is one and it is not refused, else the
    processor.  Named as records name it."""
    if device == "auto" or device.startswith("cuda"):
        for path in sorted(GPUS.glob("*/information")):
            text = path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                if line.startswith("Model:"):
                    return line.partition(":")[2].strip()
    return processor.name()


def _timed(store: ResultStore, here: str) -> tuple[list[CellRecord], int]:
    """The records that were timed here, and how many were timed elsewhere or nobody knows where."""
    own, strangers = [], 0
    for record in store.records():
        engine = record.info.get("engine")
        where = engine.get("processor") if isinstance(engine, dict) else None
        if where != here:
            strangers += 1
        elif record.seconds.get("encode") is not None and _images(record):
            own.append(record)
    return own, strangers


def _alike(record: CellRecord, label: str, row: Mapping[str, Any]) -> bool:
    info = record.info
    return (
        record.method == label
        and info.get("preset", "default") == row["preset"]
        and (info.get("backbone"), info.get("precision")) == (row["backbone"], row["precision"])
        and row["image_size"] in (0, info.get("image_size"))
    )


def _images(record: CellRecord) -> int:
    return record.n_normal + record.n_anomalous


def _typical(records: Iterable[CellRecord], stages: Sequence[str]) -> float:
    """Seconds of some stages per image: the middle of all records, which a first batch, or a busy
    moment, does not move."""
    return statistics.median(
        math.fsum(r.seconds.get(s, 0.0) for s in stages) / _images(r) for r in records
    )


def _per_cell(records: Iterable[CellRecord]) -> float:
    return statistics.median(r.seconds.get("text", 0.0) for r in records)


def _open(dataset: DatasetPlan) -> Iterator[str]:
    """The categories with a cell to do."""
    todo = {category for _, _, category in dataset.todo}
    return (category for category in dataset.samples if category in todo)


def _memory(store: ResultStore, requests: Sequence[Request]) -> int | None:
    """The most memory that a run with one of these backbones took, in MiB."""
    backbones = {request.settings.backbone.name for request in requests}
    try:
        runs = store.manifest()["runs"]
    except ZsadError:  # it is not ours to read; a plan does not fail for it
        return None
    peaks = [
        peak
        for run in runs
        if run.get("backbone", {}).get("name") in backbones
        for peak in [run.get("counters", {}).get("peak_memory_mib", {}).get("host")]
        if peak
    ]
    return max(peaks, default=None)


def _disk(store: ResultStore, cells: int) -> float | None:
    """MiB that so many cells leave, by what those that are stored left."""
    sizes = {
        kind: [p.stat().st_size for p in (store.root / kind).rglob("*") if p.is_file()]
        for kind in FILES
    }
    held = len(sizes["cells"])
    return round(sum(map(sum, sizes.values())) / held * cells / 2**20, 1) if held else None


def _words(found: Mapping[str, Any]) -> str:
    """The estimate as one line, with what it comes from and what it leaves out."""
    without = found["not_included"]
    names = ", ".join(without["no timings"])
    left = [f"no timings of {names}"] if names and found["records"] else []
    if without["trainings"]:
        left.append(f"the training of {', '.join(without['trainings'])} is not in it")
    if not found["records"]:
        return "; ".join(["estimate: no timings of this machine yet", *left])
    facts = [f"{duration(found['seconds'])}"]
    facts += [f"{found['memory_mib']:,} MiB of memory"] if found["memory_mib"] else []
    facts += [f"{found['disk_mib']:,} MiB on disk"] if found["disk_mib"] is not None else []
    source = f"from {counted(found['records'], 'record')} of this processor, {found['processor']}"
    return "; ".join([f"estimate: about {', '.join(facts)} ({source})", *left])


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.3g} h"
