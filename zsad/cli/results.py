"""``zsad results list|show|remove``: what a results folder holds, column by column.  No torch."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.cli import options
from zsad.cli.output import print_json, print_table, say
from zsad.errors import RequestError

if TYPE_CHECKING:
    from zsad.results.inventory import Holding
    from zsad.results.store import Failure, ResultStore

FAILURES = "failures"  # in place of an id: what is remembered of cells without a result


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "results",
        run,
        "List what a results folder holds, show one entry in full, or delete entries.",
        takes="words",
    )
    parser.epilog = (
        "zsad results list | zsad results show ID | zsad results remove ID...  An ID is printed by "
        f"`list`; `remove {FAILURES}` forgets the cells without a result.  Checkpoints are kept."
    )
    parser.add_argument("action", choices=["list", "show", "remove"], metavar="list|show|remove")
    options.results(parser)
    options.plugins(parser)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """List, show or remove; raises :class:`RequestError` for an id that is not there."""
    from zsad import registry
    from zsad.results.inventory import holdings
    from zsad.results.store import ResultStore

    if args.plugins:
        registry.add_plugins(args.plugins)
    store = ResultStore(options.existing_results(args.results))
    ids = [str(word) for word in args.words]
    if args.action == "list":
        if ids:
            raise RequestError(f"`zsad results list` takes no '{ids[0]}'; try `show {ids[0]}`")
        return _list(store, holdings(store), args.json)
    if not ids:
        raise RequestError(f"`zsad results {args.action}` needs an ID of `zsad results list`")
    if args.action == "show":
        return _show(store, ids, args.json)
    return _remove(store, ids, args.json)


def _list(store: ResultStore, found: Sequence[Holding], as_json: bool) -> int:
    failures = store.failures()
    if as_json:
        print_json(
            {
                "results_dir": str(store.root),
                "results": [holding.describe() for holding in found],
                "failures": [vars(failure) for failure in failures],
                "broken": [str(path.relative_to(store.root)) for path in store.broken()],
            }
        )
        return 0
    rows = [
        [
            h.name,
            h.title,
            h.dataset,
            h.backbone,
            len({c.record.category for c in h.cells}),
            len({c.record.seed for c in h.cells}),
            h.images,
            len(h.cells),
            h.aside,
            _when(max(c.written for c in h.cells)),
        ]
        for h in found
    ]
    heads = ["id", "method", "dataset", "backbone", "categories", "seeds", "images", "records"]
    print_table([*heads, "set aside", "written"], rows, right=range(4, 9))
    _print_failures(failures)
    for path in store.broken():
        say(f"Broken: {path}")
    return 0


def _show(store: ResultStore, ids: Sequence[str], as_json: bool) -> int:
    from zsad.results.inventory import chosen, holdings

    picked = chosen(holdings(store), ids)
    if as_json:
        print_json({"results": [{**h.describe(), "cells": _cells(store, h)} for h in picked]})
        return 0
    for holding in picked:
        about = holding.describe()
        say(f"{holding.title} on {holding.dataset}, backbone {holding.backbone}")
        for key in ("overrides", "settings"):
            words = ", ".join(f"{k}: {v}" for k, v in about[key].items())
            say(f"  {key}: {words or 'none'}")
        say(f"  files: {about['files'] or 'unknown'}, variant {about['variant'] or 'none'}")
        rows = [
            [c["category"], c["seed"], c["normal"], c["anomalous"], c["set aside"], c["file"]]
            for c in _cells(store, holding)
        ]
        print_table(["category", "seed", "normal", "anomalous", "set aside", "file"], rows)
    return 0


def _cells(store: ResultStore, holding: Holding) -> list[dict[str, Any]]:
    return [
        {
            "category": cell.record.category,
            "seed": cell.record.seed,
            "normal": cell.record.n_normal,
            "anomalous": cell.record.n_anomalous,
            "set aside": "" if cell.current else "yes",
            "file": Path(cell.path).relative_to(store.root).as_posix(),
            "fingerprint": cell.record.fingerprint,
            "metrics": cell.record.metrics,
        }
        for cell in sorted(holding.cells, key=lambda c: (c.record.category, c.record.seed))
    ]


def _remove(store: ResultStore, ids: Sequence[str], as_json: bool) -> int:
    from zsad.results.inventory import chosen, holdings, remove

    picked = chosen(holdings(store), [name for name in ids if name != FAILURES])
    failures = store.failures() if FAILURES in ids else []
    removed = {holding.name: remove(store, holding) for holding in picked}
    for failure in failures:
        store.forget(failure)
    if as_json:
        print_json({"removed": removed, "failures": len(failures)})
        return 0
    for holding in picked:
        say(f"Removed {removed[holding.name]} records of {holding.title} on {holding.dataset}")
    if FAILURES in ids:
        say(f"Forgot {len(failures)} cells without a result")
    return 0


def _print_failures(failures: Sequence[Failure]) -> None:
    if failures:
        say(f"Cells without a result: {len(failures)} (`zsad results remove {FAILURES}`)")
    for f in failures:
        say(f"  {f.method} on {f.dataset}/{f.category}, seed {f.seed}: {f.error}")


def _when(seconds: float) -> str:
    if not seconds:
        return "unknown"
    return datetime.datetime.fromtimestamp(seconds).isoformat(" ", timespec="minutes")
