"""``zsad run``: score pictures by a package of ``zsad export``."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
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
    return command.run(args, args.words)
