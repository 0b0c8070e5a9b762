"""Options that several verbs share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zsad.errors import RequestError


def verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, takes: str = ""
) -> argparse.ArgumentParser:
    """Add a verb.  ``takes``: "overrides" and/or "words" besides its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run, takes=takes)
    return parser


def done(parser: argparse.ArgumentParser) -> None:
    """Remember the option names, so that a misspelt one gets a suggestion."""
    names = [o for action in parser._actions for o in action.option_strings]
    parser.set_defaults(options=tuple(names))


def results(parser: argparse.ArgumentParser) -> None:
    """``--results``"""
    parser.add_argument(
        "--results", metavar="DIR", help="results folder (default: $ZSAD_RESULTS, or ./results)"
    )


def data_root(parser: argparse.ArgumentParser) -> None:
    """``--data-root``"""
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder that holds the datasets (default: $ZSAD_DATA)"
    )


def device(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--offline``"""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--offline", action="store_true", help="never reach for a weight hub")


def plugins(parser: argparse.ArgumentParser) -> None:
    """``--plugins``"""
    parser.add_argument("--plugins", metavar="DIR", help="folder with further methods")


def as_json(parser: argparse.ArgumentParser) -> None:
    """``--json``"""
    parser.add_argument("--json", action="store_true", help="print one JSON document, nothing else")


def existing_results(value: str | None) -> Path:
    """The results folder of a verb that only reads.  Raises if it holds no run."""
    from zsad.runner.request import results_dir

    path = results_dir(value)
    if not (path / "cells").is_dir():
        raise RequestError(f"{path}: no results there; run `zsad bench` first or give --results")
    return path
