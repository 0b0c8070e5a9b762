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
    parser.add_argument(
        "--class-name", required=True, metavar="TEXT", help="what the pictures show: 'metal nut'"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="ends in .zsad")
    parser.add_argument("--format", default="onnx", metavar="NAME", help="onnx or openvino")
    parser.add_argument("--backbone", default="vit-l-14-336", metavar="NAME")
    parser.add_argument("--weights", metavar="FILE", help="weight file of the backbone")
    parser.add_argument("--checkpoint", metavar="FILE", help="trained state, ours or official")
    parser.add_argument("--preset", metavar="NAME", help="see `zsad show METHOD`")
    parser.add_argument("--image-size", type=int, metavar="N", help="pixels of the model's input")
    parser.add_argument(
        "--calibrate",
        metavar="FILE",
        help="calibration.json that `zsad predict --calibrate --out` wrote for the same method",
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="PATH",
        help="normal picture, or a folder of them, to compare with (few-shot); may be repeated",
    )
    parser.add_argument("--untrained", action="store_true", help="allow the initial state")
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
    entry = registry.method(method)
    if args.untrained and args.checkpoint:
        raise RequestError("--untrained and --checkpoint: give one of them")
    if args.untrained and not entry.trained:
        raise RequestError(f"--untrained: method {method} is training-free; leave it out")
    from zsad.api import export

    with stdout_to_stderr():
        about = export(
            method,
            args.class_name,
            args.out,
            format=args.format,
            calibrate=args.calibrate,
            references=args.reference,
            overrides=args.overrides,
            backbone=args.backbone,
            weights=args.weights,
            image_size=args.image_size,
            checkpoint=args.checkpoint,
            preset=args.preset,
            offline=args.offline,
            untrained=args.untrained,
        )
    mark = f" [{about['mark']}]" if about["mark"] else ""
    say(f"{args.out}: {about['title']}, '{about['class_name']}'{mark}")
    for runtime, off in about["verified"].items():
        say(f"  {runtime}: score {off['score']:.0e}, map {off['map']:.0e} from torch")
    say(f"  {about['weights_note']}")
    say(f"use it: zsad run {args.out} PATH...")
    return 0
