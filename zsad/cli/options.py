"""Options that several verbs share."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zsad.cli.output import is_terminal
from zsad.errors import RequestError
from zsad.runner.options import RunOptions, described


def verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, takes: str = ""
) -> argparse.ArgumentParser:
    """Add a verb.  ``takes``: "overrides" and/or "words" besides its options."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run, takes=takes)
    return parser


def number(text: str) -> float:
    """A number of the command line.  Raises ``ValueError`` for NaN and infinity, too."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def count(text: str) -> int:
    """A whole number from 0 up.  Raises ``ValueError``."""
    found = int(text)
    if found < 0:
        raise ValueError(text)
    return found


def done(parser: argparse.ArgumentParser) -> None:
    """Remember the option names, so that a misspelt one gets a suggestion."""
    names = [o for action in parser._actions for o in action.option_strings]
    parser.set_defaults(options=tuple(names))


def of(parser: argparse.ArgumentParser, kind: type[RunOptions], *names: str) -> None:
    """The flags of a set of options, or of those ``names`` among them."""
    for name, (found, option) in described(kind).items():
        if option.python or (names and name not in names):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(found.default, bool):
            parser.add_argument(flag, action="store_true", help=option.help)
        elif found.default is dataclasses.MISSING:
            parser.add_argument(flag, required=True, metavar=option.metavar, help=option.help)
        else:
            parser.add_argument(
                flag, default=found.default, metavar=option.metavar, help=option.help
            )


def given(kind: type[RunOptions], args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says about a set of options, by keyword."""
    flags = {n: getattr(args, n) for n, (_, option) in described(kind).items() if not option.python}
    return {**flags, "overrides": args.overrides, "progress": is_terminal()}


def results(parser: argparse.ArgumentParser) -> None:
    """``--results``"""
    of(parser, RunOptions, "results")


def data_root(parser: argparse.ArgumentParser) -> None:
    """``--data-root``"""
    of(parser, RunOptions, "data_root")


def device(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--offline``"""
    of(parser, RunOptions, "device", "offline")


def plugins(parser: argparse.ArgumentParser) -> None:
    """``--plugins``"""
    of(parser, RunOptions, "plugins")


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
