"""``zsad reproduce``: the authors' own files, evaluated, beside what they published."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.bench import accounts_told, print_failures
from zsad.cli.output import print_json, say, stdout_to_stderr
from zsad.runner.options import BenchOptions

SHARED = ("backbone", "weights", "data_root", "results", "limit", "device", "offline")


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "reproduce",
        run,
        "Evaluate the authors' own files and set the figures beside their log and paper.",
        takes="overrides",
    )
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument(
        "--official",
        required=True,
        metavar="DIR",
        help="folder of the authors' files, under any names (hf://OWNER/REPO@REVISION, too)",
    )
    parser.add_argument(
        "--trained-on",
        metavar="DATASET",
        help="of a file of the authors' format that nobody knows (--official FILE)",
    )
    parser.add_argument("--datasets", metavar="NAMES", help="some of the targets")
    options.of(parser, BenchOptions, *SHARED)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Run both directions and all slips; 3 if a cell failed."""
    from zsad.certificate import Request, reproduce
    from zsad.certificate.page import document, shown
    from zsad.cli.output import is_terminal

    with stdout_to_stderr(), accounts_told():
        made = reproduce(
            Request(
                args.method,
                args.official,
                trained_on=args.trained_on or "",
                datasets=tuple((args.datasets or "").split(",")) if args.datasets else (),
                overrides=args.overrides,
                progress=is_terminal(),
                **{name: getattr(args, name) for name in SHARED},
            )
        )
    if args.json:
        files = {kind: str(path) for kind, path in made.written.items()}
        print_json({**document(made), "files_written": files})
    else:
        say(shown(made))
        say(f"Certificate: {made.written['html']}, LaTeX: {made.written['tex']}")
    print_failures(list(made.failed), "the others are on the certificate")
    return 3 if made.failed else 0
