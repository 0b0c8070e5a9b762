"""``zsad predict``: score pictures that have no labels."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import (
    UNREAD,
    listed,
    percent,
    print_json,
    reader_gone,
    stdout_to_stderr,
    tell,
)
from zsad.errors import RequestError, counted

if TYPE_CHECKING:
    from zsad.inference.prediction import Prediction

EPILOG = """\
PATH is a picture, a folder (all pictures below it), a pattern in quotes ('photos/**/*.png'), or -
for a list of them on standard input, one per line.

Without --calibrate the thresholds are a rule of thumb: 0.5 for the score of a picture (none for a
method that reads no text), and for a pixel what stands out from its own picture by five robust
standard deviations.  Nothing says how often normal pictures lie above them.
"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "predict",
        run,
        "Score pictures: one JSON line each on standard output, heat maps and masks in --out.",
        takes="overrides words",
    )
    parser.usage = "zsad predict --method NAME --class-name TEXT PATH... [options] [KEY=VALUE ...]"
    parser.epilog = EPILOG
    parser.add_argument("--method", required=True, metavar="NAME")
    options.one_method(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for heat maps, masks, raw maps and descriptions"
    )
    parser.add_argument(
        "--save",
        metavar="KINDS",
        help="files of --out: heat,mask,map,json,csv,page (these by default), full-map,prompts",
    )
    parser.add_argument(
        "--to",
        metavar="FORMATS",
        help="one file of all results in --out for other programs: coco,csv,parquet",
    )
    parser.add_argument(
        "--ignore",
        metavar="WHAT",
        help="parts that are not looked at: a mask, a folder of masks by the pictures' names "
        "(white is ignored), or x,y,w,h in pixels",
    )
    parser.add_argument(
        "--one-file",
        action="store_true",
        help="the page of --out holds all it shows (200 pictures)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DIR",
        help="set thresholds by a few normal pictures; or the calibration.json of an earlier --out",
    )
    parser.add_argument(
        "--false-alarms",
        type=options.number,
        metavar="SHARE",
        help="of normal pictures, that --calibrate allows (default: 0.05)",
    )
    parser.add_argument(
        "--threshold",
        type=options.number,
        metavar="X",
        help="map value from which a pixel is anomalous",
    )
    parser.add_argument(
        "--image-threshold",
        type=options.number,
        metavar="X",
        help="score from which a picture is anomalous",
    )
    parser.add_argument(
        "--precision", default="auto", metavar="NAME", help="auto, fp32, tf32, bf16, fp16 or int8"
    )
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="who runs the image encoder on a CPU: auto, torch, onednn or openvino",
    )
    parser.add_argument(
        "--kind", metavar="NAME", help="object or texture, for prompts that depend on it"
    )
    parser.add_argument(
        "--domain", metavar="NAME", help="industrial or medical, for prompts that depend on it"
    )
    parser.add_argument(
        "--save-bank", metavar="FILE", help="keep what the method remembers of the references"
    )
    parser.add_argument("--bank", metavar="FILE", help="such a file, in place of references")
    parser.add_argument(
        "--keep-aspect", action="store_true", help="do not squeeze pictures into a square"
    )
    parser.add_argument(
        "--scale",
        metavar="LOW,HIGH",
        help="values of the coldest and the hottest colour (default: the lowest of each map, and "
        "its highest or twice as far up as the threshold, whichever is more)",
    )
    parser.add_argument(
        "--explanations", type=options.count, default=5, metavar="K", help="reasons per picture"
    )
    options.device(parser)
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Score all pictures; 3 if some cannot be read or scored."""
    if not args.words:
        raise RequestError("`zsad predict` needs pictures; give files or folders")
    _refuse_what_changes_nothing(args)
    from zsad.api import predict_iter

    with stdout_to_stderr():
        found = predict_iter(
            args.method,
            [word for word in args.words if word != "-"],
            args.class_name,
            calibrate=args.calibrate,
            false_alarms=args.false_alarms,
            out=args.out,
            threshold=args.threshold,
            image_threshold=args.image_threshold,
            scale=_scale(args.scale),
            ignore=args.ignore,
            save=args.save,
            to=args.to,
            one_file=args.one_file,
            references=args.reference,
            explanations=args.explanations,
            listed=listed() if "-" in args.words else [],
            plugins=args.plugins,
            kind=args.kind,
            domain=args.domain,
            bank=args.bank,
            save_bank=args.save_bank,
            **options.loading(args),
        )
    failed = 0
    said: set[str] = set()
    while True:
        with stdout_to_stderr():
            prediction = next(found, None)
        if prediction is None:
            return 3 if failed else 0
        failed += bool(prediction.error)
        for note in _notes(prediction, args):
            if note not in said:
                tell(f"zsad: note: {note}")
                said.add(note)
        print_json(prediction.to_dict(), indent=None)
        if reader_gone() and args.out is None:  # nobody sees the others, and they leave no files
            return 3 if failed else UNREAD


def _refuse_what_changes_nothing(args: argparse.Namespace) -> None:
    """Raise :class:`RequestError` before anything is loaded."""
    if args.plugins:
        registry.add_plugins(args.plugins)
    if _scale(args.scale) and args.out is None:
        raise RequestError(f"--scale {args.scale}: needs --out, where the heat maps are written")
    options.check_state(args, registry.method(args.method))


def _notes(prediction: Prediction, args: argparse.Namespace) -> Iterator[str]:
    """What there is to say about the weights, texts and thresholds behind a prediction.  The same
    of all pictures, for the most part: each note is told once."""
    made_by, method, class_name = prediction.made_by, args.method, args.class_name
    yield from (made_by[key] for key in ("mark", "bundled") if made_by.get(key))
    if words := made_by.get("words"):
        entry = f", entry {words['entry']}" if "entry" in words else ""
        yield f"words about '{class_name}' are those of {words['file']}{entry}"
    limits = prediction.thresholds
    if limits is None or prediction.error:
        return
    if limits.pixel is None:
        yield (
            f"the maps of method '{method}' do not show where a defect is: there are no masks and "
            f"no regions, only scores; --threshold X marks pixels nevertheless"
        )
    if prediction.sees_ignored:
        yield (
            f"the score of method '{method}' still sees the pixels of --ignore, because it reads "
            f"the whole picture; map, mask and regions do not"
        )
    if limits.rule == "uncalibrated":
        yield (
            "the thresholds are not calibrated, but a rule of thumb; give --calibrate DIR with a "
            "few normal pictures"
        )
    elif limits.rule == "calibrated":
        yield (
            f"thresholds from {counted(limits.normal_pictures, 'normal picture')}; at most "
            f"{percent(limits.false_alarms)} % false alarms are expected of pictures like them"
            + _of_masks(limits.mask_false_alarms)
        )
    else:
        other = "follows from --calibrate" if args.calibrate else "is a rule of thumb"
        if args.image_threshold is None and limits.image is not None:
            yield f"the threshold of a picture is not given by hand: it {other}"
        if args.threshold is None and limits.pixel is not None:
            yield f"the threshold of a pixel is not given by hand: it {other}"


def _of_masks(share: float | None) -> str:
    if share is None:
        return ""
    return f", and something marked in {100 * share:.2g} % of them (estimated by how maps spread)"


def _scale(value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(v) for v in value.split(","))
    except ValueError:
        low = high = 0.0
    if not (low < high and math.isfinite(high - low)):
        raise RequestError(f"--scale {value}: give two numbers, the lower first, such as 0,1")
    return low, high
