"""What a run in lower precision says of itself: how far its figures drift from float32's, and what
its encoder was calibrated on.

Drift is measured on what the results folder holds: a cell of this run against the cell that the
same request makes in float32.  Nothing is estimated; where there is none, that is said.  No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from zsad.config import DEFAULTS, Settings
from zsad.metrics.spec import drifting
from zsad.results.records import CellKey, CellRecord
from zsad.results.store import ResultStore
from zsad.runner.plan import Plan, build_plan
from zsad.runner.request import Request

EXACT: Final = "fp32"


def exact(request: Request) -> Request:
    """The same request in float32, by whichever engine: in float32 all make the same cells."""

    def settings(own: Settings) -> Settings:
        return replace(own, backbone=replace(own.backbone, precision=EXACT, engine="auto"))

    columns = [replace(c, settings=c.settings and settings(c.settings)) for c in request.columns]
    return replace(request, columns=tuple(columns), settings=settings(request.settings))


@dataclass
class _Line:
    """What is known of one method on one dataset so far."""

    document: dict[str, Any]
    changes: dict[str, dict[str, float]] = field(default_factory=dict)  # metric -> cell -> change

    def finished(self) -> dict[str, Any]:
        for name, by_cell in self.changes.items():
            most = max(by_cell, key=lambda cell: abs(by_cell[cell]))
            self.document["metrics"][name] = {
                "mean": sum(by_cell.values()) / len(by_cell),
                "largest": by_cell[most],
                "cell": most,
            }
        return self.document


def drift(plan: Plan, store: ResultStore) -> list[dict[str, Any]]:
    """How far each method's figures on a dataset are from float32's; [] for a run in it.

    Each has ``method``, ``dataset``, ``precision``, how many of its cells (``of``) have one of
    float32 beside them (``cells``), and ``metrics``: by name the mean change ``mean`` over these
    and the ``largest`` one with its ``cell`` (the category, and the seed where there are several),
    in 0..1 with a sign.  ``trained_apart`` (only where it is so): the method has another state in
    float32, so that the change is of two trainings.  ``asked``: whether the precision was asked
    for, and not ``auto``'s.
    """
    used = plan.request.settings.backbone.figures
    if used == EXACT:
        return []
    asked = plan.request.origins.get("backbone.precision", DEFAULTS) != DEFAULTS
    twin = build_plan(exact(plan.request), store, plan.weights_id, plan.demo)
    right = {_cell(key): key for key, stored in twin.cells() if stored}
    found: dict[tuple[str, str], _Line] = {}
    for key, stored in plan.results(store):
        if not stored:
            continue  # it failed, which is said elsewhere
        line = found.setdefault(
            (key.method, key.dataset),
            _Line(
                {
                    "method": key.method,
                    "dataset": key.dataset,
                    "precision": used,
                    "asked": asked,
                    "cells": 0,
                    "of": 0,
                    "metrics": {},
                }
            ),
        )
        line.document["of"] += 1
        if (other := right.get(_cell(key))) is None:
            continue
        record, exact_record = store.get(key), store.get(other)
        line.document["cells"] += 1
        if _state(record) != _state(exact_record):
            line.document["trained_apart"] = True
        several = len(plan.request.seeds) > 1
        cell = f"{key.category}, seed {key.seed}" if several else key.category
        for name, change in _changes(record, exact_record):
            line.changes.setdefault(name, {})[cell] = change
    return [line.finished() for line in found.values()]


def _cell(key: CellKey) -> tuple[object, ...]:
    return tuple(key.document().values())


def _state(record: CellRecord) -> str:
    """The state that a method was scored with; "" for one that is not trained."""
    return str((record.info.get("trained_on") or {}).get("checkpoint", ""))


def _changes(record: CellRecord, right: CellRecord) -> Iterator[tuple[str, float]]:
    for name in (m.name for m in drifting()):
        ours, theirs = record.metrics.get(name), right.metrics.get(name)
        if ours is not None and theirs is not None:
            yield name, ours - theirs


def calibrations(plan: Plan, store: ResultStore) -> list[Mapping[str, Any]]:
    """What the encoders behind the cells of a plan were calibrated on, each once; [] for none."""
    found: dict[str, Mapping[str, Any]] = {}
    for key, stored in plan.results(store):
        if stored:
            engine = store.get(key).info.get("engine") or {}
            if used := engine.get("calibration"):
                found[str(used)] = used
    return list(found.values())
