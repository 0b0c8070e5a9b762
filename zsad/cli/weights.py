"""``zsad weights import``: turn a method's official checkpoint into one of ours."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import say, stdout_to_stderr
from zsad.errors import CellError, RequestError, WeightsError


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "weights", run, "Import the official checkpoint of a trained method.", "overrides"
    )
    parser.add_argument("action", choices=["import"], metavar="import")
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("file", metavar="FILE", help="the checkpoint as released")
    parser.add_argument("--out", metavar="FILE", help="default: METHOD-official.safetensors")
    parser.add_argument("--backbone", default="vit-l-14-336", metavar="NAME")
    parser.add_argument("--weights", metavar="FILE", help="weight file of the backbone")
    options.device(parser)
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Convert the file and say what was found in it."""
    from zsad.config import parse_dotlist

    if args.plugins:
        registry.add_plugins(args.plugins)
    entry = registry.method(args.method)
    if not entry.trained:
        raise RequestError(f"method '{entry.name}' is training-free: it has no checkpoints")
    given = parse_dotlist(args.overrides)
    if extra := [k for k in given if k != entry.name]:
        raise RequestError(
            f"'{extra[0]}' does not belong to {entry.name}; write {entry.name}.KEY=VALUE"
        )
    source = Path(args.file)
    if not source.is_file():
        raise WeightsError(f"{source}: no such file; give the path of the released checkpoint")
    target = Path(args.out or f"{entry.name}-official.safetensors")
    own = given.get(entry.name, {})
    if "grounding" in entry.defaults and (report := _detector(source, own)):
        say(*report)
        say(f"use it: zsad bench --methods {entry.name} {entry.name}.grounding.weights={source}")
        return 0
    from zsad import backbones
    from zsad.checkpoints import import_file

    with stdout_to_stderr():
        info = backbones.load(args.backbone, weights=args.weights, offline=args.offline).info
        layers = [("preset", {"preset": "released"})] if "released" in entry.presets else []
        try:
            report = import_file(entry, source, target, info, [*layers, ("the command line", own)])
        except CellError as error:  # there is no cell: the one file could not be written
            raise RequestError(str(error)) from None
    say(*report)
    say(f"use it: zsad bench --methods {entry.name} {entry.name}.checkpoint={target} ...")
    return 0


def _detector(source: Path, given: Mapping[str, Any]) -> list[str]:
    """The key report of a Grounding DINO file, which is used as it is; empty for another file."""
    from zsad.checkpoints import load_any
    from zsad.grounding import grounding_dino

    if not grounding_dino.is_state(load_any(source).state):
        return []
    options = given.get("grounding")
    encoder = options.get("text_encoder") if isinstance(options, Mapping) else None
    with stdout_to_stderr():
        return grounding_dino.key_report(source, encoder)
