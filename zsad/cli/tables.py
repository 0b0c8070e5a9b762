"""``zsad tables``: make tables from stored results."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.output import say, say_document
from zsad.errors import counted, unknown


def add(verbs: Any) -> None:
    """Register the verb."""
    from zsad.tables.formats import FORMATS

    parser = options.verb(verbs, "tables", run, "Make tables from the results folder.")
    options.results(parser)
    parser.add_argument(
        "--format", default="md,tex,csv,html", metavar="F,...", help=f"of {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "--published",
        nargs="?",
        const="measured",
        choices=["measured", "all"],
        metavar="all",
        help="set the papers' numbers beside the measured ones; all: and those of systems that are "
        "not hosted here, and how many no run can be set beside",
    )
    parser.add_argument("--ci", action="store_true", help="add intervals over images")
    parser.add_argument(
        "--significance",
        action="store_true",
        help="add paired tests between methods on the same images, with Holm's correction",
    )
    parser.add_argument(
        "--cost", action="store_true", help="add a page of parameters and times, never ranked"
    )
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Write the tables, print the overview."""
    from zsad import registry, tables
    from zsad.tables.formats import FORMATS

    formats = registry.expand(args.format)
    for name in formats:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    folder = options.existing_results(args.results)
    extras = {
        "published": args.published or False,
        "ci": args.ci,
        "significance": args.significance,
        "cost": args.cost,
    }
    written = tables.write(folder, formats, **extras)
    say_document(tables.render(folder, **extras))
    say(f"wrote {counted(len(written), 'file')} into {folder / 'tables'}")
    return 0
