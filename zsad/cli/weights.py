"""``zsad weights import``: turn a method's official checkpoint into one of ours."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import say, stdout_to_stderr
from zsad.data.catalog import named
from zsad.errors import CellError, RequestError, WeightsError

if TYPE_CHECKING:
    from zsad.types import BackboneInfo


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "weights", run, "Import the official checkpoint of a trained method.", "overrides"
    )
    parser.add_argument("action", choices=["import"], metavar="import")
    parser.add_argument("method", metavar="METHOD")
    parser.add_argument("file", metavar="FILE", help="the checkpoint as released")
    parser.add_argument("--out", metavar="FILE", help="default: METHOD-official.safetensors")
    parser.add_argument(
        "--trained-on", metavar="DATASET", help="what it was trained on, for files nobody knows"
    )
    parser.add_argument(
        "--backbone", metavar="NAME", help="default: the named one whose sizes it has"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="weight file of the backbone (its sizes, for a file)"
    )
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
    if not source.is_file() and not (entry.companions and source.is_dir()):
        raise WeightsError(f"{source}: no such file; give the path of the released checkpoint")
    target = Path(args.out or f"{entry.name}-official.safetensors")
    own = given.get(entry.name, {})
    if "grounding" in entry.defaults and (report := _detector(source, own)):
        say(*report)
        say(f"use it: zsad bench --methods {entry.name} {entry.name}.grounding.weights={source}")
        return 0
    with stdout_to_stderr():
        layers = [("preset", {"preset": "released"})] if "released" in entry.presets else []
        try:
            report = _convert(entry, args, target, [*layers, ("the command line", own)])
        except CellError as error:  # there is no cell: the one file could not be written
            raise RequestError(str(error)) from None
    say(*report)
    say(f"use it: zsad bench --methods {entry.name} {entry.name}.checkpoint={target} ...")
    return 0


def _convert(
    entry: registry.MethodEntry,
    args: argparse.Namespace,
    target: Path,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[str]:
    """Convert for the backbone that was named, or for the first named one whose sizes fit."""
    from zsad.checkpoints import import_file

    trained_on = named(args.trained_on, "--trained-on") if args.trained_on else ""
    infos = _backbones(args.backbone, args.weights, args.offline)
    failure: WeightsError | None = None
    for info in infos:
        try:
            report = import_file(entry, args.file, target, info, layers, trained_on)
        except WeightsError as error:
            failure = failure or error  # that of the first says most
            continue
        return [*report, f"its sizes are those of backbone {info.name}"]
    assert failure is not None  # there is at least one
    raise failure


def _backbones(name: str | None, weights: str | None, offline: bool) -> Iterator[BackboneInfo]:
    """The sizes to try; no weights are read, unless a file of them was given."""
    from zsad.backbones.outline import outline
    from zsad.backbones.specs import specs

    if weights:
        from zsad import backbones

        yield backbones.load(name or "vit-l-14-336", weights=weights, offline=offline).info
    elif name:
        yield outline(name)
    else:
        yield from (outline(known) for known, spec in specs().items() if spec.model_config())


def _detector(source: Path, given: Mapping[str, Any]) -> list[str]:
    """The key report of a Grounding DINO file, which is used as it is; empty for another file."""
    from zsad.checkpoints import load_any
    from zsad.grounding import grounding_dino, official_state, transformers_dino

    if not official_state.is_state(load_any(source).state):
        return []
    held = given.get("grounding")
    options = held if isinstance(held, Mapping) else {}
    old = options.get("detector") == "groundingdino"
    report = grounding_dino.key_report if old else transformers_dino.key_report
    with stdout_to_stderr():
        return report(source, options.get("text_encoder"))
