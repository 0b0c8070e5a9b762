"""``zsad run``: score pictures by a package of ``zsad export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zsad.cli import options
from zsad.data.indexers.own_folder import understand
from zsad.runtime import command


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "run", run, "Score pictures by a file of `zsad export`, without torch.", "words"
    )
    command.arguments(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Score all pictures; 3 if some cannot be read or scored."""
    return command.run(args, args.words, _below)


def _below(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures that `zsad predict` would score of a folder, and the other files."""
    held = understand(folder)
    pictures = [p for p in held.candidates if p not in held.mask_of]
    others = {e.path for e in held.account.entries} - set(pictures)
    return [folder / p for p in sorted(pictures)], [folder / p for p in sorted(others)]
