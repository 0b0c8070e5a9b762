"""The JSON document of a run, made from the plan and the store alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from zsad.runner.plan import Plan
from zsad.store import ResultStore
from zsad.types import CellRecord


def document(
    plan: Plan, store: ResultStore, counters: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Return the document that ``zsad bench --json`` prints.

    ``counters`` and ``seconds`` describe this run only; cells include those stored earlier.
    """
    records: list[CellRecord] = []
    failed: list[dict[str, Any]] = []
    failures = {(f.method, f.dataset, f.category, f.seed): f for f in store.failures()}
    for key, _ in plan.cells():
        name = {
            "method": key.method,
            "dataset": key.dataset,
            "category": key.category,
            "seed": key.seed,
        }
        if store.has(key):
            records.append(store.get(key))
        else:
            failure = failures.get((key.method, key.dataset, key.category, key.seed))
            failed.append({"cell": name, "error": failure.error if failure else "was not run"})
    for dataset, error in plan.unplanned.items():
        failed.append({"cell": {"dataset": dataset}, "error": str(error)})
    return {
        "results_dir": str(store.root),
        "cells": [cell(r) for r in records],
        "summary": summary(records),
        "failed": failed,
        "counters": dict(counters),
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
    }


def cell(record: CellRecord) -> dict[str, Any]:
    """One cell of the document."""
    return {
        "method": record.method,
        "dataset": record.dataset,
        "category": record.category,
        "seed": record.seed,
        "metrics": record.metrics,
        "undefined": record.undefined,
        "n_normal": record.n_normal,
        "n_anomalous": record.n_anomalous,
        "seconds": record.seconds,
        "backbone": record.info.get("backbone", ""),
        "banner": record.info.get("banner", ""),
    }


def summary(records: list[CellRecord]) -> list[dict[str, Any]]:
    """Per method and dataset, the mean over categories (then seeds), with the count behind it.

    An undefined metric is left out of the mean; with no defined value the mean is None.
    """
    groups: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
    for record in records:
        groups[record.method, record.dataset].append(record)
    out = []
    for (method, dataset), members in groups.items():
        names = list(dict.fromkeys(m for r in members for m in r.metrics))
        values = {m: [v for r in members if (v := r.metrics.get(m)) is not None] for m in names}
        out.append(
            {
                "method": method,
                "dataset": dataset,
                "metrics": {m: math.fsum(v) / len(v) if v else None for m, v in values.items()},
                "counts": {m: len(v) for m, v in values.items()},
                "categories": len({r.category for r in members}),
                "seeds": sorted({r.seed for r in members}),
            }
        )
    return out
