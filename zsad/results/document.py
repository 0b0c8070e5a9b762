"""The JSON document of a run, made from the cells that were planned and the store alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zsad.results import identity, weights
from zsad.results.aggregate import is_partial, over_categories, undefined_reasons
from zsad.results.records import CellKey, CellRecord
from zsad.results.store import ResultStore

# What a record says of its dataset that whoever shows its figures has to say with them.
OF_DATASET = ("ignore", "score_sees_ignored", "figure_notes", "dataset_fpr_limit")


def document(
    cells: Iterable[tuple[CellKey, bool]],
    unplanned: Mapping[str, Exception],
    store: ResultStore,
    counters: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the document that ``zsad bench --json`` prints.

    ``cells``: those of the plan, in table order, with whether the store holds the record that was
    asked for (an older one is not, where a cell was to be computed again); ``unplanned``: datasets
    that could not be read, with the error.  ``counters`` and ``seconds`` describe this run only;
    cells include those stored earlier.
    """
    records: list[CellRecord] = []
    failed: list[dict[str, Any]] = []
    failures = {
        CellKey(f.method, f.dataset, f.category, f.seed, f.fingerprint): f.error
        for f in store.failures()
    }
    for key, done in cells:
        if done:
            records.append(store.get(key))
        else:
            failed.append({"cell": key.document(), "error": failures.get(key, "was not run")})
    for dataset, error in unplanned.items():
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
        **named(record),
        "dataset": record.dataset,
        "category": record.category,
        "seed": record.seed,
        "metrics": record.metrics,
        "undefined": record.undefined,
        "n_normal": record.n_normal,
        "n_anomalous": record.n_anomalous,
        "seconds": record.seconds,
        "backbone": record.info.get("backbone", ""),
        "banner": weights.banner_of(record.info),
        **({"skipped": record.info["skipped"]} if is_partial(record) else {}),
        **{k: record.info[k] for k in OF_DATASET if k in record.info},
        **({"fpr_limit": identity.limit_of(record)} if "dataset_fpr_limit" in record.info else {}),
    }


def named(record: CellRecord) -> dict[str, str]:
    """The method's title as a table's heading says it, and the part of it that tells the
    configuration, "" for the default one."""
    (heading,) = identity.headings([identity.of_record(record)])
    title = f"{record.info.get('title') or record.method}{heading.suffix}"
    return {"title": title, "configuration": heading.suffix}


def _named_together(records: Iterable[CellRecord]) -> dict[str, str]:
    """:func:`named` of records behind one mean; where they differ (one category had no boxes), all
    that they are called."""
    found = [named(record) for record in records]
    return {key: " / ".join(dict.fromkeys(one[key] for one in found)) for key in found[0]}


def summary(records: Sequence[CellRecord]) -> list[dict[str, Any]]:
    """Per method and dataset, the mean over categories, then over seeds, with the count behind it.

    The figures are those of the tables (:func:`over_categories`): a category that one seed lacks
    is left out for all seeds.  ``metrics``: in 0..1, None where undefined; a metric that no record
    holds is absent.  ``counts``: how many of the dataset's ``categories`` are behind a mean;
    ``undefined``: ``{metric: {reason: [categories]}}`` of those that are not; ``partial`` (only
    where it is so): some of these were scored without files that cannot be read.
    """
    groups: dict[tuple[str, str], dict[tuple[str, int], CellRecord]] = {}
    categories: dict[str, dict[str, None]] = {}  # by dataset, whichever method they are stored of
    for record in records:
        cells = groups.setdefault((record.method, record.dataset), {})
        cells[record.category, record.seed] = record
        categories.setdefault(record.dataset, {})[record.category] = None
    out = []
    for (method, dataset), cells in groups.items():
        of = tuple(categories[dataset])
        names = dict.fromkeys(m for r in cells.values() for m in r.metrics)
        figures = {m: over_categories(cells, m, of) for m in names}
        out.append(
            {
                "method": method,
                **_named_together(cells.values()),
                "dataset": dataset,
                "metrics": {m: f.value for m, f in figures.items()},
                "counts": {m: f.count for m, f in figures.items()},
                "categories": len(of),
                "undefined": undefined_reasons(cells.values()),
                "seeds": sorted({seed for _, seed in cells}),
                **({"partial": True} if any(map(is_partial, cells.values())) else {}),
            }
        )
    return out
