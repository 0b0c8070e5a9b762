"""``zsad train``: train methods on the labelled part of a dataset."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from zsad.cli import options
from zsad.cli.bench import print_failures
from zsad.cli.output import print_json, print_table, say, stdout_to_stderr
from zsad.errors import counted
from zsad.runner.options import TrainOptions


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "train",
        run,
        "Train methods on a dataset; `zsad bench --trained-on DATASET` finds the checkpoints.",
        takes="overrides",
    )
    options.of(parser, TrainOptions)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 3 if a method failed."""
    from zsad.api import train
    from zsad.training.provision import follower

    with stdout_to_stderr():
        document = train(**options.given(TrainOptions, args))
    if follower():  # the first process speaks for all
        print_failures(document["failed"])
        return 3 if document["failed"] else 0
    if args.json:
        print_json(document)
    else:
        rows = [
            [c["method"], c["seed"], "stored" if c["reused"] else f"{c['seconds']:.0f} s"]
            + [c["checkpoint"]]
            for c in document["checkpoints"]
        ]
        if rows:
            print_table(["method", "seed", "training", "checkpoint"], rows, right=(1, 2))
            methods = ",".join(dict.fromkeys(c["method"] for c in document["checkpoints"]))
            if document["banner"]:
                say(f"Note: {document['banner']}.")
            said = " ".join(_same_training(args))
            say(f"use it: zsad bench --methods {methods} --trained-on {said} --datasets ...")
        kept = (
            counted(len(rows), "checkpoint is", "checkpoints are") + " stored"
            if rows
            else "nothing was stored"
        )
        print_failures(document["failed"], kept)
    return 3 if document["failed"] else 0


# What of a command decides which training is meant: `zsad bench` finds it under the same options.
_DECIDING = ("backbone", "weights", "config", "data_root", "results", "seeds", "limit", "plugins")


def _same_training(args: argparse.Namespace) -> list[str]:
    """The dataset that was trained on, and the options and keys with which the training is found
    again, for a shell."""
    words = [str(args.on)]
    for name in _DECIDING:
        value = getattr(args, name, None)
        if value not in (None, ""):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return [shlex.quote(word) for word in [*words, *args.overrides]]
