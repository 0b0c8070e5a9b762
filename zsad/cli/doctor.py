"""``zsad doctor``: say what works on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from zsad.cli import options
from zsad.cli.output import print_json, print_table, stdout_to_stderr


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "doctor", run, "Check versions, devices, weights, datasets, disk and metrics."
    )
    options.data_root(parser)
    options.results(parser)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings; 3 if something is broken (what is merely absent or differs is not)."""
    from zsad.doctor import examine

    with stdout_to_stderr():
        findings = examine(args.data_root, args.results)
    if args.json:
        print_json([f._asdict() for f in findings])
    else:
        signs = {"ok": "ok", "absent": "-", "differs": "DIFFERS", "broken": "BROKEN"}
        rows = [[f.area, f.name, signs[f.state], f.text] for f in findings]
        print_table(["area", "what", "state", "details"], rows)
    return 3 if any(f.state == "broken" for f in findings) else 0
