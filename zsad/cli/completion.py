"""``zsad completion``: the script by which a shell completes verbs, options and names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import say_document
from zsad.errors import RequestError

SHELLS = ("bash", "zsh", "tcsh")
# What an option or argument asks for, by its ``dest``: completed by the names that there are.
METHODS = ("method", "methods")
DATASETS = ("dataset", "datasets", "on", "trained_on")

EPILOG = """\
Names of methods, datasets, backbones and protocols are those that are installed when the script is
written: write it again after a plug-in came or went.
"""
# One word more of a comma list: what stands before the last comma stays.
BASH = """\
_zsad_of_{kind}() {{
  local before="" word="$1" name
  [[ "$word" == *,* ]] && before="${{word%,*}},"
  for name in {names}; do
    [[ "$before$name" == "$word"* ]] && echo "$before$name"
  done
}}"""
ZSH = """\
_zsad_of_{kind}() {{
  local -a names=({names})
  _values -s , {kind} $names
}}"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "completion", run, "Print the script by which a shell completes commands."
    )
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    if args.plugins:
        registry.add_plugins(args.plugins)
    say_document(script(args.shell).rstrip("\n"))
    return 0


def script(shell: str) -> str:
    """The script for ``shell``.  Raises :class:`RequestError` without the package shtab."""
    try:
        import shtab
    except ImportError:
        raise RequestError("`zsad completion` needs shtab: pip install shtab") from None
    from zsad.cli.main import build_parser

    parser = build_parser()
    names = {
        "methods": [*registry.list_methods(), *registry.GROUPS],
        "datasets": [*registry.list_datasets(), *_dataset_groups()],
        "backbones": registry.list_backbones(),
        "protocols": registry.list_protocols(),
    }
    names["anything"] = sorted({name for of in names.values() for name in of})
    for action in _actions(parser):
        if action.choices is not None:
            continue
        if (kind := _kind(action)) is not None:
            action.complete = _of(kind, names[kind])  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "PACKAGE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))


def _of(kind: str, names: Sequence[str]) -> dict[str, Any]:
    """How each shell completes a name of a kind, or one more of a comma list."""
    words = " ".join(names)
    function = f"_zsad_of_{kind}"
    return {
        "bash": function,
        "zsh": function,
        "tcsh": f"({words})",
        "preamble": {
            "bash": BASH.format(kind=kind, names=words),
            "zsh": ZSH.format(kind=kind, names=words),
        },
    }


def _kind(action: argparse.Action) -> str | None:
    if action.dest == "name" and not action.option_strings:  # of `zsad show`
        return "anything"
    if action.dest in METHODS:
        return "methods"
    if action.dest in DATASETS:
        return "datasets"
    return {"backbone": "backbones", "protocol": "protocols"}.get(action.dest)


def _dataset_groups() -> list[str]:
    from zsad.data.catalog import GROUPS

    return list(GROUPS)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option and argument, of all verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
        else:
            yield action
