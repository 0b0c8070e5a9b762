"""``zsad run PACKAGE PATH...``: one JSON line for each picture.

Also ``python -m zsad.runtime``, for machines that have numpy, Pillow and a runtime and nothing
else.  Exit codes are those of ``zsad``: 0 done, 2 wrong request, 3 some pictures failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zsad.errors import RequestError, ZsadError, is_text, one_line, reason, shown
from zsad.runtime.package import Package, load
from zsad.runtime.pictures import Below, found

USAGE = "zsad run PACKAGE PATH... [--out DIR] [--boxes FILE] [--runtime NAME] [--threads N]"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.usage = USAGE
    parser.add_argument("--out", metavar="DIR", help="folder for maps, float32 [H, W] as .npy")
    parser.add_argument(
        "--boxes", metavar="FILE", help="JSON of a detector's boxes by picture, as `predict` takes"
    )
    parser.add_argument("--runtime", metavar="NAME", help="onnxruntime or openvino")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: all cores")


def run(args: argparse.Namespace, words: Sequence[str], below: Below | None = None) -> int:
    """Score all pictures; 3 if some cannot be read or scored.  ``below``: as
    :func:`zsad.runtime.pictures.found` has it.  Raises :class:`RequestError`."""
    if len(words) < 2:
        raise RequestError(f"`zsad run` needs a package and pictures; {USAGE}")
    if args.threads < 0:
        raise RequestError(f"--threads {args.threads}: give a number from 0 up")
    part = load(words[0], args.runtime, args.threads, args.boxes)
    pictures = found(words[1:], args.out, below)
    print(f"zsad: {part.title}, on {part.runtime}", file=sys.stderr)
    out = _folder(args.out)
    failed = 0
    for number, path in enumerate(pictures):
        said = _said(part, path, out, number)
        if args.boxes and "boxes" not in said and "error" not in said:
            print(f"zsad: {args.boxes}: no boxes of {shown(path)}; going on without its boxes",
                  file=sys.stderr)  # fmt: skip
        failed += "error" in said
        print(json.dumps(said), flush=True)
    return 3 if failed else 0


def _folder(name: str | None) -> Path | None:
    if name is None:
        return None
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {name}: cannot be written ({error.strerror})") from None
    return Path(name)


def _said(part: Package, path: str, out: Path | None, number: int) -> dict[str, Any]:
    """What is said of a picture, or its error: the others go on."""
    name = path if is_text(path) else shown(path)
    try:
        one = part.predict(path)
    except ZsadError as error:
        return {"path": name, "error": reason(error)}
    said = {"path": name, **one.plain(), "made_by": part.about.get("made_by", {})}
    if out is not None:
        stem = os.fsencode(Path(path).stem)[:200].decode("utf-8", "ignore")  # of 255 bytes
        file = out / f"{number:05d}-{stem}.npy"
        try:
            np.save(file, one.anomaly_map)
        except OSError as error:
            raise RequestError(f"--out {out}: cannot be written ({error.strerror})") from None
        said["files"] = {"map": str(file)}
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command by itself; errors are one line."""
    parser = argparse.ArgumentParser(prog="python -m zsad.runtime", allow_abbrev=False)
    arguments(parser)
    parser.usage = USAGE.replace("zsad run", "python -m zsad.runtime")
    parser.add_argument("words", nargs="*", metavar="PACKAGE PATH")
    args = parser.parse_args(argv)
    try:
        return run(args, args.words)
    except ZsadError as error:
        print(f"zsad: error: {one_line(reason(error))}", file=sys.stderr)
        return error.exit_code
