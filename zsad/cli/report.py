"""``zsad report``: one self-contained HTML page about a results folder."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.output import print_json


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "report", run, "Write <results>/report/index.html: tables, curves, heat maps, runs."
    )
    options.results(parser)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it lies."""
    from zsad.report import write

    path = write(options.existing_results(args.results))
    if args.json:
        print_json({"report": str(path)})
    else:
        print(f"Report: {path}")
    return 0
