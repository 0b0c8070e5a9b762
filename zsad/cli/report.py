"""``zsad report``: one self-contained HTML page about a results folder."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.output import print_json, say
from zsad.errors import RequestError


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "report", run, "Write <results>/report/index.html: tables, curves, heat maps, runs."
    )
    options.results(parser)
    parser.add_argument(
        "--pictures", metavar="N", help="example pictures on the page at most (default: 1200)"
    )
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it lies."""
    from zsad.report import write

    path = write(options.existing_results(args.results), **_pictures(args.pictures))
    if args.json:
        print_json({"report": str(path)})
    else:
        say(f"Report: {path}")
    return 0


def _pictures(value: str | None) -> dict[str, int]:
    """The number of pictures, where one is given."""
    if value is None:
        return {}
    if not value.isdecimal():
        raise RequestError(
            f"--pictures {value}: give a whole number, 0 for a page without pictures"
        )
    return {"most_pictures": int(value)}
