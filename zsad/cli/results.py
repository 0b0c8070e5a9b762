"""``zsad results list|show|remove|import|export``: what a results folder holds, column by column,
and scores and maps that come from elsewhere or go there."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.cli import options
from zsad.cli.bench import accounts_told, print_summary
from zsad.cli.output import is_terminal, print_json, print_table, say, stdout_to_stderr, tell
from zsad.config.method_config import ALL_SHOTS
from zsad.errors import RequestError, counted, shown
from zsad.runner.options import BenchOptions

if TYPE_CHECKING:
    from zsad.results.inventory import Holding
    from zsad.results.store import Failure, ResultStore

ACTIONS = ("list", "show", "remove", "import", "export")
FIRST = 3  # names that belong to no image, printed
# Options of a run that an import and an export heed, beside --results and --plugins.
IMPORTING = ("datasets", "data_root", "seeds", "limit")
EXPORTING = ("protocol", "backbone", "weights", "config", "device", "offline", "untrained")
HEEDED = {
    "import": ("maps", "name", "provenance", "shots", "partial", *IMPORTING),
    "export": ("maps", "methods", *IMPORTING, *EXPORTING),
}
FAILURES = "failures"  # in place of an id: what is remembered of cells without a result


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "results",
        run,
        "List what a results folder holds, show or delete entries, import scores and maps of "
        "another program, export those of methods.",
        takes="overrides words",
    )
    parser.epilog = (
        "zsad results list | zsad results show ID | zsad results remove ID...  An ID is printed by "
        f"`list`; `remove {FAILURES}` forgets the cells without a result.  Checkpoints are kept.  "
        "zsad results import --name NAME --maps DIR|FILE --datasets D [KEY=VALUE ...] | "
        "zsad results export --maps DIR|FILE.npz --methods M --datasets D [KEY=VALUE ...]"
    )
    parser.add_argument("action", choices=ACTIONS, metavar="|".join(ACTIONS))
    parser.add_argument("--maps", metavar="DIR|FILE", help="import, export: scores and maps")
    parser.add_argument("--name", help="import: what to call the method")
    parser.add_argument("--provenance", metavar="TEXT", help="import: where the maps are from")
    parser.add_argument(
        "--shots", metavar="N|all", help="import: normal images of each category that it has seen"
    )
    parser.add_argument(
        "--partial", action="store_true", help="import what there is; it is never ranked"
    )
    options.of(parser, BenchOptions, "methods", *IMPORTING, *EXPORTING, "results", "plugins")
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """List, show or remove; raises :class:`RequestError` for an id that is not there."""
    from zsad import registry
    from zsad.results.inventory import holdings
    from zsad.results.store import ResultStore

    if args.plugins:
        registry.add_plugins(args.plugins)
    _refuse_void(args)
    if args.action == "import":
        return _import(args)
    if args.action == "export":
        return _export(args)
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


def _refuse_void(args: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for an option or a word that the action does not heed."""
    heeded = HEEDED.get(args.action, ())
    for action, names in HEEDED.items():
        for name in names:
            value, default = getattr(args, name), "auto" if name == "device" else None
            if name not in heeded and value not in (default, None, False):
                raise RequestError(
                    f"--{name.replace('_', '-')}: is of `zsad results {action}`, not of "
                    f"`zsad results {args.action}`; leave it out"
                )
    if not heeded and args.overrides:
        raise RequestError(
            f"`zsad results {args.action}` takes no KEY=VALUE such as '{shown(args.overrides[0])}'"
        )
    if heeded and args.words:
        raise RequestError(f"`zsad results {args.action}` takes no '{shown(args.words[0])}'")
    needed = {"import": ("name", "maps", "datasets"), "export": ("maps", "methods", "datasets")}
    for name in needed.get(args.action, ()):
        if not getattr(args, name):
            raise RequestError(f"`zsad results {args.action}` needs --{name}")


def _import(args: argparse.Namespace) -> int:
    from zsad.exchange import imported
    from zsad.runner.request import parse_limit, parse_seeds

    seeds = parse_seeds(args.seeds, (0,))
    if len(seeds) > 1:
        raise RequestError(f"--seeds {args.seeds}: an import is of one seed; give one")
    request = imported.Import(
        args.name,
        Path(args.maps),
        args.datasets,
        provenance=args.provenance or "",
        partial=args.partial,
        seed=seeds[0],
        limit=parse_limit(args.limit),
        results=args.results,
        data_root=args.data_root,
        overrides=args.overrides,
        shots=_shots(args.shots),
    )
    with stdout_to_stderr(), accounts_told():
        document = imported.run(request)
    about = document["imported"]
    for dataset, ids in about["left_out"].items():
        tell(
            f"zsad: {dataset}: {counted(len(ids), 'image is', 'images are')} not imported: "
            "never ranked, nor compared"
        )
    for dataset, names in about["strangers"].items():
        first = ", ".join(map(shown, names[:FIRST]))
        tell(
            f"zsad: {dataset}: {counted(len(names), 'name belongs', 'names belong')} to no test "
            f"image, left out: {first}"
        )
    if args.json:
        print_json(document)
        return 0
    for dataset, words in about["maps"].items():
        say(f"{dataset}: {words}, image score: {about['image_score'][dataset]}")
    print_summary(document)
    return 0


def _shots(text: str | None) -> int:
    """The number of ``--shots``.  Raises :class:`RequestError`."""
    if text == "all":
        return ALL_SHOTS
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise RequestError(f"--shots {shown(text)}: give a number from 1 up, or all")
    return int(text or 0)


def _export(args: argparse.Namespace) -> int:
    from zsad.exchange import exported

    names = ("methods", "results", "plugins", *IMPORTING, *EXPORTING)
    given = {name: getattr(args, name) for name in names}
    with stdout_to_stderr(), accounts_told():
        document = exported.run(
            args.maps,
            BenchOptions(**given, overrides=args.overrides, progress=is_terminal()),
        )
    if args.json:
        print_json(document)
    else:
        print_summary(document)
        for folder, count in document["exported"]["images"].items():
            say(f"Maps: {Path(args.maps) / folder} ({counted(count, 'image')})")
    return 3 if document["failed"] else 0


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
            h.read,
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
        say(f"{holding.title} on {holding.read}, backbone {holding.backbone}")
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
        say(
            f"Removed {counted(removed[holding.name], 'record')} of {holding.title} on "
            f"{holding.read}"
        )
    if FAILURES in ids:
        say(f"Forgot {counted(len(failures), 'cell')} without a result")
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
