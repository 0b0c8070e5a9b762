"""``zsad train``: train methods on the labelled part of a dataset."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.bench import print_failures
from zsad.cli.output import is_terminal, print_json, print_table, stdout_to_stderr


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "train",
        run,
        "Train methods on a dataset; `zsad bench` finds the checkpoints in the results folder.",
        takes="overrides",
    )
    parser.add_argument("--methods", metavar="NAMES", required=True, help="trained, NAME,...")
    parser.add_argument("--on", metavar="DATASET", required=True, help="the auxiliary dataset")
    parser.add_argument("--protocol", metavar="NAME", help="see `zsad list protocols`")
    parser.add_argument("--backbone", metavar="NAME", help="see `zsad list backbones`")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    options.data_root(parser)
    options.results(parser)
    parser.add_argument("--seeds", metavar="N,...", help="one training each")
    parser.add_argument("--limit", metavar="N", help="at most N images per category, balanced")
    options.device(parser)
    parser.add_argument("--devices", default="1", metavar="N", help="devices to train on (or auto)")
    parser.add_argument("--strategy", default="auto", help="Lightning's strategy for several")
    options.plugins(parser)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 3 if a method failed."""
    from zsad.api import train
    from zsad.training.provision import follower

    devices = int(args.devices) if args.devices.isdigit() else args.devices
    with stdout_to_stderr():
        document = train(
            args.methods,
            args.on,
            protocol=args.protocol,
            backbone=args.backbone,
            data_root=args.data_root,
            results=args.results,
            seeds=args.seeds,
            limit=args.limit,
            device=args.device,
            offline=args.offline,
            plugins=args.plugins,
            config=args.config,
            overrides=args.overrides,
            devices=devices,
            strategy=args.strategy,
            progress=is_terminal(),
        )
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
        print_failures(document["failed"])
    return 3 if document["failed"] else 0
