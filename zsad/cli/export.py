"""``zsad export``: one method for one class name as one file that runs without torch."""

from __future__ import annotations

import argparse
from typing import Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import say, stdout_to_stderr
from zsad.errors import RequestError
from zsad.runner.options import RunOptions

EPILOG = """\
The file holds the graph, the class name, how pictures are prepared, and the thresholds of
--calibrate; `zsad run FILE PATH...` and zsad.runtime score pictures by it with numpy, Pillow and
onnxruntime or openvino.
"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "export", run, "Write a method for one class name as one file.", "overrides words"
    )
    parser.usage = "zsad export METHOD --class-name TEXT --out FILE.zsad [options] [KEY=VALUE ...]"
    parser.epilog = EPILOG
    options.one_method(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="ends in .zsad")
    parser.add_argument("--format", default="onnx", metavar="NAME", help="onnx or openvino")
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        help="calibration.json that `zsad predict --calibrate --out` wrote for the same method",
    )
    options.of(parser, RunOptions, "offline")
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Write the package and say what is in it."""
    if len(args.words) != 1:
        raise RequestError("`zsad export` needs one method; see `zsad list methods`")
    method = args.words[0]
    if args.plugins:
        registry.add_plugins(args.plugins)
    options.check_state(args, registry.method(method))
    from zsad.api import export

    with stdout_to_stderr():
        about = export(
            method,
            args.class_name,
            args.out,
            format=args.format,
            calibrate=args.calibrate,
            references=args.reference,
            **options.loading(args),
        )
    mark = f" [{about['mark']}]" if about["mark"] else ""
    say(f"{args.out}: {about['title']}, '{about['class_name']}'{mark}")
    for runtime, off in about["verified"].items():
        say(f"  {runtime}: score {off['score']:.0e}, map {off['map']:.0e} from torch")
    say(f"  {about['weights_note']}")
    say(f"use it: zsad run {args.out} PATH...")
    return 0
