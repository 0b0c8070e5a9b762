"""``zsad predict``: score pictures that have no labels."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.cli import options
from zsad.cli.output import print_json, stdout_to_stderr
from zsad.errors import DataError, RequestError, ZsadError
from zsad.io import atomic_write_bytes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from zsad.predictor import LoadedMethod
    from zsad.types import Prediction

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm"}


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "predict",
        run,
        "Score pictures: one JSON line each on standard output, heat maps in --out.",
        takes="overrides words",
    )
    parser.usage = "zsad predict --method NAME --class-name TEXT PATH... [options] [KEY=VALUE ...]"
    parser.add_argument("--method", required=True, metavar="NAME")
    parser.add_argument(
        "--class-name", required=True, metavar="TEXT", help="what the pictures show: 'metal nut'"
    )
    parser.add_argument("--out", metavar="DIR", help="folder for heat maps, masks and raw maps")
    parser.add_argument("--backbone", default="vit-l-14-336", metavar="NAME")
    parser.add_argument("--weights", metavar="FILE", help="weight file of the backbone")
    parser.add_argument("--checkpoint", metavar="FILE", help="trained state, ours or official")
    parser.add_argument("--preset", metavar="NAME", help="see `zsad show METHOD`")
    parser.add_argument(
        "--reference", action="append", default=[], metavar="PATH", help="normal picture (few-shot)"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="map value from which a pixel is anomalous"
    )
    parser.add_argument(
        "--scale",
        metavar="LOW,HIGH",
        help="colours of the heat map (default: each map's own range)",
    )
    parser.add_argument(
        "--explanations", type=int, default=5, metavar="K", help="reasons per picture"
    )
    parser.add_argument("--untrained", action="store_true", help="allow the initial state")
    options.device(parser)
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Score all pictures; 3 if some cannot be read."""
    if not args.words:
        raise RequestError("`zsad predict` needs pictures; give files or folders")
    scale = _scale(args.scale)
    paths = list(pictures(args.words))
    method = _load(args)
    failed = 0
    for path, top in paths:
        try:
            with stdout_to_stderr():
                prediction = method.predict(
                    [str(path)],
                    args.class_name,
                    references=args.reference,
                    explanations=args.explanations,
                )[0]
            line = {"path": str(path), "image_score": prediction.image_score}
            line["map_max"] = float(prediction.anomaly_map.max())
            line["explanations"] = [asdict(e) for e in prediction.explanations]
            if args.out:
                line["files"] = _save(
                    prediction, path, _stem(path, top), Path(args.out), args.threshold, scale
                )
        except DataError as error:
            failed += 1
            line = {"path": str(path), "error": str(error)}
        print_json(line, indent=None)
    return 3 if failed else 0


def pictures(words: Sequence[str]) -> Iterator[tuple[Path, Path | None]]:
    """Files and, sorted, the pictures in folders, each with the folder it was found through.

    Raises :class:`DataError` for a path that is not there and for a folder without pictures.
    """
    for word in words:
        path = Path(word)
        if path.is_dir():
            found = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file()
            )
            if not found:
                raise DataError(f"{path}: no pictures there ({', '.join(sorted(ENDINGS))})")
            yield from ((p, path) for p in found)
        elif path.is_file():
            yield path, None
        else:
            raise DataError(f"{path}: no such file or folder")


def _load(args: argparse.Namespace) -> LoadedMethod:
    from zsad import registry

    if args.plugins:
        registry.add_plugins(args.plugins)
    registry.method(args.method)  # a misspelt name ends here, before torch is imported
    from zsad.api import load_method

    with stdout_to_stderr():
        return load_method(
            args.method,
            backbone=args.backbone,
            weights=args.weights,
            checkpoint=args.checkpoint,
            preset=args.preset,
            device=args.device,
            overrides=args.overrides,
            offline=args.offline,
            untrained=args.untrained,
        )


def _stem(path: Path, top: Path | None) -> Path:
    """Where below ``--out`` the files of a picture go, without their ending."""
    inside = path.relative_to(top) if top else Path(path.name)
    return inside.with_name(inside.name.replace(".", "_"))


def _save(
    prediction: Prediction,
    source: Path,
    stem: Path,
    out: Path,
    threshold: float | None,
    scale: tuple[float, float] | None,
) -> dict[str, str]:
    """Write the raw map, the heat map and (with a threshold) the mask; return their paths."""
    from zsad import overlay
    from zsad.data.images import read_image

    values = prediction.anomaly_map
    low, high = scale or (float(values.min()), float(values.max()))
    content = {
        "map": (".npy", _npy(values)),
        "heat": (".png", _png(overlay.overlay(read_image(str(source)), values, low, high))),
    }
    if threshold is not None:
        content["mask"] = ("_mask.png", _png(overlay.mask(values, threshold)))
    files = {}
    for kind, (ending, raw) in content.items():
        path = out / stem.with_name(stem.name + ending)
        try:
            files[kind] = str(atomic_write_bytes(path, raw))
        except OSError as error:
            raise RequestError(f"--out {path}: cannot be written ({error.strerror})") from None
    return files


def _png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _npy(values: np.ndarray) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, values.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()


def _scale(value: str | None) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(v) for v in value.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise ZsadError(f"--scale {value}: give two numbers, the lower first, such as 0,1")
    return low, high
