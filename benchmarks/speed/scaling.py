"""What a run costs against the number of methods, of images, the image size and the batch.

    python -m zsad.benchmarks.speed.scaling [--quick] [--backbone NAME] [--device D] [--json]

Each axis is varied alone.  ``methods``: one to all of ``--methods``, added in order; ``images``:
how many images pass by batch after batch, with the rise of the process' peak memory above the
first batch, which should not grow; ``size``: pixels of one side; ``batch``: images per forward.
Random images, initial states, text prepared once; a figure is the time per image of encoder,
heads, maps, scores and metrics.  The points of an axis take turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zsad import backbones
from zsad.backbones.backbone import PRECISIONS
from zsad.benchmarks.speed import measure
from zsad.benchmarks.speed.end_to_end import Pipeline

Point = tuple[Callable[[], Any], int]  # the work, and how many images it does


def batch_of(count: int, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Return random images and masks, every second image with a region."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=generator).to(device)
    masks = torch.zeros(count, size, size, dtype=torch.bool)  # stay on the host, as in a sweep
    masks[1::2, size // 4 : size // 2, size // 4 : size // 2] = True
    return images, masks


class Scaling:
    """The axes, on one backbone per image size."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.names: list[str] = options.methods.split(",")
        self.pipelines: dict[int, Pipeline] = {}

    def pipeline(self, size: int = 0) -> Pipeline:
        """All methods at an image size (0: the backbone's own)."""
        if size not in self.pipelines:
            options = self.options
            backbone = backbones.load(
                options.backbone,
                weights=None if options.backbone == "zsad-tiny" else "random",
                image_size=size,
                precision=options.precision,
                device=options.device,
            )
            self.pipelines[size] = Pipeline(backbone, self.names)
        return self.pipelines[size]

    def work(self, names: Sequence[str], batch: int, size: int = 0, batches: int = 1) -> Point:
        """Score ``batches`` times a batch with some methods."""
        pipeline = self.pipeline(size)
        side = pipeline.backbone.info.image_size
        images, masks = batch_of(batch, side, self.options.device)

        def run() -> None:
            for _ in range(batches):
                pipeline.run(names, images, masks)

        return run, batch * batches

    def methods(self) -> dict[str, Point]:
        counts = range(1, len(self.names) + 1)
        return {str(n): self.work(self.names[:n], self.options.batch) for n in counts}

    def sizes(self) -> dict[str, Point]:
        return {str(s): self.work(self.names, self.options.batch, s) for s in self.options.sizes}

    def batches(self) -> dict[str, Point]:
        return {str(b): self.work(self.names, b) for b in self.options.batches}

    def images(self) -> dict[str, Point]:
        size = self.options.batch
        return {str(size * n): self.work(self.names, size, batches=n) for n in self.options.passes}


def measure_axis(points: Mapping[str, Point], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per point: time per image, and the rise of peak memory while it was warmed up."""
    rise: dict[str, float] = {}
    for name, (work, _) in points.items():
        before = measure.memory_mib("cpu")["host"]
        work()
        rise[name] = measure.memory_mib("cpu")["host"] - before
    ways = {name: work for name, (work, _) in points.items()}
    seconds = measure.interleaved(ways, options.repeats, options.device, options.clock)
    first = next(iter(points))
    rows = []
    for name, (_, images) in points.items():
        per_image = [s / images for s in seconds[name]]
        base = [s / points[first][1] for s in seconds[first]]
        rows.append(
            {
                "point": int(name),
                "seconds_per_image": measure.spread(per_image),
                "times_first": measure.ratio(per_image, base),
                "rise_of_peak_mib": rise[name],
            }
        )
    return rows


def numbers(text: str) -> list[int]:
    """Read "1,2,4"."""
    return [int(n) for n in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    parser = measure.options(__doc__)
    parser.add_argument("--backbone", default="zsad-tiny")
    parser.add_argument("--methods", default="anomalyclip,faprompt,kanoclip,filo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", default=[1, 2, 4, 8, 16, 32], type=numbers)
    parser.add_argument("--sizes", default=[112, 224, 336, 448], type=numbers)
    parser.add_argument("--passes", default=[1, 4, 16], type=numbers)
    parser.add_argument("--axes", default="images,methods,size,batch")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--quick", action="store_true", help="two points on every axis, once")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repeats, options.batch, options.batches = 1, 2, [1, 2]
        options.sizes, options.passes = [112, 224], [1, 3]
        options.methods = "anomalyclip,filo"
    torch.set_num_threads(options.threads)
    scaling = Scaling(options)
    axes = {
        "images": scaling.images,  # first: peak memory only ever rises
        "methods": scaling.methods,
        "size": scaling.sizes,
        "batch": scaling.batches,
    }
    given = measure.conditions(
        options.device,
        backbone=options.backbone,
        methods=options.methods,
        precision=options.precision,
        batch=options.batch,
        repeats=options.repeats,
        clock=options.clock,
    )
    found = {name: measure_axis(axes[name](), options) for name in options.axes.split(",")}
    document = {"conditions": given, "axes": found}
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(given))
    for name, rows in found.items():
        print(f"{name:>8}{'ms per image':>26}{'x the first':>22}{'peak rises, MiB':>17}")
        for row in rows:
            print(
                f"{row['point']:8}{measure.shown(row['seconds_per_image'], 1000, 1):>26}"
                f"{measure.shown(row['times_first']):>22}{row['rise_of_peak_mib']:17.0f}"
            )
    return document


if __name__ == "__main__":
    main()
