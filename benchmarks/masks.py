"""How usable the masks of ``zsad predict`` are, method by method, on small subsets of real data.

    python -m zsad.benchmarks.masks --data-root DIR [--methods NAME,...] [--maps DIR]

For every method and dataset, with the bundled ``zsad-tiny``: thresholds are calibrated on half of
the normal pictures, at most five, and masks are made of the other pictures.  A table in Markdown
says, in per cent,

* with true masks: how much of the true defect is marked (median over the pictures) / how much of
  the normal area of defective pictures (median, and the worst picture in brackets) / how much of
  good pictures (median);
* without: how many of the anomalous pictures have any pixel marked / how many of the good ones.

A dataset without normal pictures is measured with the uncalibrated rule, marked with a star.  A
trained method is trained on the generated dataset first.  ``--maps`` keeps the maps: what lies
there is not scored again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import zsad
from zsad import registry
from zsad.data.images import nearest, read_image, read_mask
from zsad.data.index import load_index
from zsad.errors import DataError
from zsad.inference import calibration
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.prediction import Prediction
from zsad.types import Sample

DATASETS = {  # name: (categories, normal, anomalous pictures of each)
    "mvtec": (("leather",), 20, 11),
    "synthetic": (("bottle", "capsule", "leather"), 16, 8),
    "elpv": (("solar_cell",), 20, 11),
    "brainmri": (("brain",), 20, 11),
    "headct": (("brain",), 20, 11),
    "covid19": (("chest",), 20, 11),
    "cvc_clinicdb": (("colon",), 20, 11),
}
CALIBRATION = 5  # normal pictures
SHOTS = 4  # of a method that refers to normal pictures


@dataclass
class Maps:
    """``maps`` [N, S, S]; ``labels`` [N]; ``masks`` [N, S, S] and ``has`` [N], which of the
    anomalous pictures have one."""

    maps: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    has: NDArray[np.bool_]


def spread(items: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` items at equal distances, or all."""
    step = max(1.0, len(items) / count)
    return [items[int(i * step)] for i in range(min(count, len(items)))]


def scored(loaded: LoadedMethod, dataset: str, category: str, root: str) -> Maps:
    """The maps of a subset.  Raises :class:`DataError` where the data is not there."""
    index = load_index(dataset, root, strict=False)
    own = [s for s in index.samples if s.category == category]
    _, normal_count, anomalous_count = DATASETS[dataset]
    normal = spread([s for s in own if not s.label], normal_count)
    anomalous = spread([s for s in own if s.label and s.split == "test"], anomalous_count)
    near = (
        normal[:: max(1, len(normal) // loaded.method.shots)][: loaded.method.shots]
        if (loaded.method.shots)
        else []
    )
    if loaded.method.shots and len(near) < loaded.method.shots:
        raise DataError("too few normal pictures to refer to")
    chosen = [s for s in normal if s not in near] + anomalous
    pictures = [read_image(s.image, s.crop) for s in chosen]
    found = loaded.predict_tensor(
        torch.stack([loaded.pictures.preprocess(p) for p in pictures]),
        index.categories[category].class_name,
        references=[read_image(s.image, s.crop) for s in near],
        explanations=0,
    )
    size = (loaded.image_size, loaded.image_size)
    masks = [
        nearest(read_mask(s, (p.height, p.width)), size) if s.mask else np.zeros(size, dtype=bool)
        for s, p in zip(chosen, pictures)
    ]
    maps = [p.values for p in found if p.values is not None]
    return Maps(
        np.stack(maps),
        np.array([s.label for s in chosen]),
        np.stack(masks),
        np.array([s.mask is not None for s in chosen]),
    )


def cell(found: Maps) -> str:
    """What the table says of one subset, or of several that are joined; see the module."""
    normal, anomalous = np.flatnonzero(found.labels == 0), np.flatnonzero(found.labels)
    limits = None
    judged = normal
    if len(normal) > 1:
        count = min(CALIBRATION, len(normal) // 2)
        contrasts = [calibration.contrast(found.maps[i]) for i in normal[::2][:count]]
        limits = calibration.calibrated([0.0] * count, contrasts)
        judged = np.setdiff1d(normal, normal[::2][:count])

    def marked(i: Any) -> NDArray[np.bool_]:
        of_it = calibration.of_picture(limits, found.maps[i], reads_text=True)
        mask = Prediction(0.0, found.maps[i], thresholds=replace(of_it, image=None)).mask
        assert mask is not None
        return mask

    good = [marked(i).mean() for i in judged]
    with_mask = [i for i in anomalous if found.has[i] and found.masks[i].any()]
    star = "" if limits else "\\*"
    if not with_mask:
        shares = [
            f"{100 * np.mean([share > 0 for share in of]):.0f}" if len(of) else "–"
            for of in ([marked(i).mean() for i in anomalous], good)
        ]
        return f"{' / '.join(shares)}{star}"
    hits = [marked(i)[found.masks[i]].mean() for i in with_mask]
    area = [marked(i)[~found.masks[i]].mean() for i in with_mask]
    worst = f"{100 * max(area):.1f}"
    return f"{middle(hits)} / {middle(area)} ({worst}) / {middle(good)}{star}"


def middle(shares: Sequence[Any]) -> str:
    """The median of shares in per cent; "–" without any."""
    return f"{100 * np.median(shares):.1f}" if len(shares) else "–"


def loaded(method: str, work: Path) -> LoadedMethod:
    """The method on the small backbone; a trained one with a state from the generated data."""
    entry = registry.method(method)
    options: dict[str, Any] = {"backbone": "zsad-tiny", "device": "cpu"}
    if entry.trained:
        made = zsad.train(
            methods=method, on="synthetic", backbone="zsad-tiny", device="cpu", limit=16,
            results=str(work / "results"),
        )  # fmt: skip
        options["checkpoint"] = made["checkpoints"][0]["checkpoint"]
    elif method_needs_shots(method):
        options["overrides"] = {"shots": SHOTS}
    made_ready: LoadedMethod = zsad.load_method(method, **options)
    return made_ready


def method_needs_shots(method: str) -> bool:
    """Whether a method has no map without normal pictures."""
    return bool(registry.method(method).defaults.get("shots"))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", required=True, metavar="DIR")
    parser.add_argument("--methods", default="", metavar="NAME,...", help="default: all")
    parser.add_argument("--maps", default="results/masks", metavar="DIR")
    args = parser.parse_args(argv)
    names = args.methods.split(",") if args.methods else sorted(registry.list_methods())
    work = Path(args.maps)
    work.mkdir(parents=True, exist_ok=True)
    print(f"| method | {' | '.join(DATASETS)} |")
    print(f"|---|{'---|' * len(DATASETS)}", flush=True)
    for name in names:
        print(f"| {name} | {' | '.join(_row(name, work, args.data_root))} |", flush=True)
    return 0


def _row(name: str, work: Path, root: str) -> list[str]:
    row: list[str] = []
    method: LoadedMethod | None = None
    for dataset, (categories, _, _) in DATASETS.items():
        parts: list[str] = []
        for category in categories:
            path = work / f"{name}.{dataset}.{category}.npz"
            try:
                if not path.is_file():
                    method = method or loaded(name, work)
                    _keep(path, scored(method, dataset, category, root))
                parts.append(cell(_kept(path)))
            except DataError as error:
                print(f"{name} on {dataset}: {error}", file=sys.stderr)
                parts.append("–")
        row.append("<br>".join(parts))
    return row


def _keep(path: Path, found: Maps) -> None:
    np.savez_compressed(path, **vars(found))


def _kept(path: Path) -> Maps:
    with np.load(path) as archive:
        return Maps(*(archive[name] for name in ("maps", "labels", "masks", "has")))


if __name__ == "__main__":
    raise SystemExit(main())
