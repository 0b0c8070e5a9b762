"""``zsad data check|prepare``: whether a dataset is there and sound, and how to get it there."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from zsad.cli import options
from zsad.cli.output import print_json, say
from zsad.data.check import CheckReport, check
from zsad.data.prepare import PreparedDataset, prepare
from zsad.errors import CellError, DataError, RequestError, ZsadError


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "data",
        run,
        "Check datasets (counts, every image and mask), or extract a downloaded archive.",
    )
    parser.epilog = "`check` exits with 3 when a dataset is not as published or a file is broken."
    parser.add_argument("action", choices=["check", "prepare"], metavar="check|prepare")
    parser.add_argument("dataset", metavar="DATASET", help="a name; check takes several and groups")
    options.data_root(parser)
    parser.add_argument("--variant", metavar="NAME", help="the preparation that is meant")
    parser.add_argument("--archive", metavar="FILE", help="prepare: the downloaded zip or tar file")
    parser.add_argument("--counts", action="store_true", help="check: only count, open no file")
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Check or prepare; 3 if a dataset is not what it should be."""
    from zsad.data.catalog import select_datasets
    from zsad.runner.request import data_root

    names = select_datasets(args.dataset)
    if args.action == "check":
        if args.archive:
            raise RequestError("--archive belongs to `zsad data prepare`")
        return _check(args, names, data_root(args.data_root))
    if len(names) > 1:
        raise RequestError(f"`zsad data prepare` takes one dataset, not {len(names)}")
    if args.variant or args.counts:
        raise RequestError("--variant and --counts belong to `zsad data check`")
    return _prepare(args, names[0])


# ------------------------------------------------------------------------------- check
def _check(args: argparse.Namespace, names: list[str], root: Path | None) -> int:
    reports: list[CheckReport] = []
    failures: dict[str, ZsadError] = {}
    for name in names:
        try:
            reports.append(check(name, root, args.variant, open_files=not args.counts))
        except DataError as error:
            if len(names) == 1:
                raise
            failures[name] = error
            if not args.json:
                say(f"{name}: NOT there: {error}")
            continue
        if not args.json:
            say(*reports[-1].lines())
    if args.json:
        print_json(
            {
                "datasets": [_report(r) for r in reports],
                "failed": [{"dataset": n, "error": str(e)} for n, e in failures.items()],
            }
        )
    return CellError.exit_code if failures or not all(r.ok for r in reports) else 0


def _report(report: CheckReport) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "dataset": report.dataset,
        "ok": report.ok,
        "variant": report.variant,
        "title": report.title,
        "other_variants": [v._asdict() for v in report.others],
        "layout": report.layout,
        "root": None if report.root is None else str(report.root),
        "n_normal": report.total[0],
        "n_anomalous": report.total[1],
        "published": report.published,
        "categories": [c._asdict() for c in report.counts],
        "opened": report.opened,
        "masks": report.masks,
        "mask_threshold": report.mask_threshold,
        "sizes": report.sizes,
        "modes": report.modes,
        "findings": [f._asdict() for f in report.findings],
    }


# ----------------------------------------------------------------------------- prepare
def _prepare(args: argparse.Namespace, name: str) -> int:
    import os

    # The folder for datasets need not exist before the first one is put there.
    root = args.data_root or os.environ.get("ZSAD_DATA")
    done = prepare(name, root, args.archive)
    if args.json:
        print_json(_prepared(done))
    else:
        say(*done.lines())
    return CellError.exit_code if done.index.problems else 0


def _prepared(done: PreparedDataset) -> dict[str, Any]:
    """What was prepared as JSON."""
    normal, anomalous = done.index.counts()
    fields = {f.name: getattr(done, f.name) for f in dataclasses.fields(done) if f.name != "index"}
    return {
        **fields,
        "target": None if done.target is None else str(done.target),
        "root": None if done.index.root is None else str(done.index.root),
        "variant": done.index.variant,
        "n_normal": normal,
        "n_anomalous": anomalous,
        "problems": done.index.problems,
        "notes": done.index.notes,
    }
