"""The dense-map core against building every map as the released repositories do, side by side.

    python -m zsad.benchmarks.speed.maps [--quick] [--size 518] [--batch 4] [--device D] [--json]

``obvious``: per stage a softmax over both labels, both channels enlarged, then fused, then every
image smoothed by scipy on the host.  ``core``: ``zsad.maps.build_maps``, which enlarges one
channel, fuses before it enlarges wherever that is linear, and smooths the batch as two products
with banded matrices.  The rows are the methods' own map specifications; the largest difference
of the two ways is printed beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from zsad import maps
from zsad.benchmarks.speed import measure
from zsad.types import MapSpec, Scores

GRID = 37
SPECS = {  # stages and specification of the methods' default maps
    "filo": (7, MapSpec("upsample_then_softmax", True, blur="gaussian", sigma=4)),
    "kanoclip": (4, MapSpec("upsample_then_softmax", True, blur="gaussian", sigma=4)),
    "faprompt": (2, MapSpec("softmax_then_upsample", False, blur="gaussian", sigma=10)),
    "anomalyclip": (1, MapSpec("softmax_then_upsample", False, blur="gaussian", sigma=4)),
}


def obvious(stages: Sequence[Tensor], spec: MapSpec, size: int) -> Tensor:
    """Every stage on its own: [B, H, W] on the host."""
    planes = []
    for logits in stages:
        if spec.order == "upsample_then_softmax":
            logits = _enlarged(logits, size, spec.align_corners)
            planes.append(logits.softmax(1)[:, 1])
        else:
            planes.append(_enlarged(logits.softmax(1), size, spec.align_corners)[:, 1])
    fused = torch.stack(planes).mean(0).cpu().numpy()
    return torch.from_numpy(np.stack([gaussian_filter(m, spec.sigma) for m in fused]))


def _enlarged(x: Tensor, size: int, align_corners: bool) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=align_corners)


@torch.no_grad()
def measure_specs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per specification."""
    rows = []
    for name, (count, spec) in SPECS.items():
        generator = torch.Generator().manual_seed(0)
        stages = [
            (3 * torch.randn(options.batch, 2, GRID, GRID, generator=generator)).to(options.device)
            for _ in range(count)
        ]
        scores = Scores(stages, torch.zeros(options.batch))

        def slow(stages: Sequence[Tensor] = stages, spec: MapSpec = spec) -> Tensor:
            return obvious(stages, spec, options.size)

        def fast(scores: Scores = scores, spec: MapSpec = spec) -> Tensor:
            return maps.build_maps(scores, spec, options.size).final

        difference = float((slow() - fast().cpu()).abs().max())
        seconds = measure.interleaved(
            {"obvious": slow, "core": fast}, options.repeats, options.device, options.clock
        )
        rows.append(
            {
                "spec": name,
                "stages": count,
                **{
                    f"{way}_seconds": measure.spread([s / options.batch for s in values])
                    for way, values in seconds.items()
                },
                "times_faster": measure.ratio(seconds["obvious"], seconds["core"]),
                "largest_difference": difference,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    parser = measure.options(__doc__, repeats=7)
    parser.add_argument("--size", type=int, default=518, help="pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="112 pixels, 3 repeats")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.repeats = 112, 3
    torch.set_num_threads(options.threads)
    document: dict[str, Any] = {
        "conditions": measure.conditions(
            options.device,
            size=options.size,
            batch=options.batch,
            repeats=options.repeats,
            clock=options.clock,
        ),
        "specs": measure_specs(options),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(document["conditions"]))
    print(
        f"{'maps of':14}{'stages':>7}{'obvious, ms':>22}{'core, ms':>20}{'faster':>20}{'diff':>9}"
    )
    for row in document["specs"]:
        print(
            f"{row['spec']:14}{row['stages']:7}"
            f"{measure.shown(row['obvious_seconds'], 1000, 1):>22}"
            f"{measure.shown(row['core_seconds'], 1000, 1):>20}"
            f"{measure.shown(row['times_faster'], 1, 1):>20}{row['largest_difference']:9.0e}"
        )
    return document


if __name__ == "__main__":
    main()
