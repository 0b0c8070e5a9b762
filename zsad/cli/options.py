"""Options that several verbs share."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zsad.cli import examples
from zsad.cli.output import is_terminal
from zsad.errors import RequestError
from zsad.inference.options import LoadOptions
from zsad.registry import MethodEntry
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


def size(text: str) -> int:
    """A whole number but 0, which would be no size.  Raises ``ValueError``."""
    found = int(text)
    if not found:
        raise ValueError(text)
    return found


def done(parser: argparse.ArgumentParser) -> None:
    """Remember the option names, so that a misspelt one gets a suggestion, and add examples."""
    names = [o for action in parser._actions for o in action.option_strings]
    parser.set_defaults(options=tuple(names))
    parser.epilog = examples.epilog(parser.prog.split()[-1], parser.epilog or "")


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


def one_method(parser: argparse.ArgumentParser) -> None:
    """What loads one method for one kind of thing: :func:`loading` reads it, :func:`check_state`
    checks it."""
    parser.add_argument(
        "--class-name", required=True, metavar="TEXT", help="what the pictures show: 'metal nut'"
    )
    parser.add_argument("--backbone", default="vit-l-14-336", metavar="NAME")
    parser.add_argument("--weights", metavar="FILE", help="weight file of the backbone")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="trained state, ours or official (or a folder, hf://)"
    )
    parser.add_argument("--preset", metavar="NAME", help="see `zsad show METHOD`")
    parser.add_argument(
        "--image-size", type=size, metavar="N", help="pixels of the model's input (backbone's own)"
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="PATH",
        help="normal picture, or a folder of them, to compare with (few-shot); may be repeated",
    )
    parser.add_argument("--untrained", action="store_true", help="allow the initial state")
    parser.add_argument(
        "--tiles",
        metavar="N|auto",
        help="look at tiles, too: N along the longer side, auto: of the model's input size",
    )


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says about loading a method, by keyword of :func:`zsad.load_method`."""
    names = [f.name for f in dataclasses.fields(LoadOptions) if f.name != "name"]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def check_state(args: argparse.Namespace, entry: MethodEntry) -> None:
    """Raise :class:`RequestError` for a state that a method cannot be loaded with."""
    if args.untrained and args.checkpoint:
        raise RequestError("--untrained and --checkpoint: give one of them")
    if args.untrained and not entry.trained:
        raise RequestError(f"--untrained: method {entry.name} is training-free; leave it out")


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
