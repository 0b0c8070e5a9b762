"""``zsad train``: train methods on the labelled part of a dataset."""

from __future__ import annotations

import argparse
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
            say(f"use it: zsad bench --methods {methods} --trained-on {args.on} ...")
        kept = (
            counted(len(rows), "checkpoint is", "checkpoints are") + " stored"
            if rows
            else "nothing was stored"
        )
        print_failures(document["failed"], kept)
    return 3 if document["failed"] else 0
