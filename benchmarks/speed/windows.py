"""Window embeddings as token subsets against encoding every masked window as an image.

    python -m zsad.benchmarks.speed.windows [--quick] [--backbone NAME] [--scales 2,3] [--json]

Three ways to the class embedding of every k x k window of one image:

* ``token_subset`` (WinCLIP's and ALFA's): {class token, patches of the window}, many windows per
  call, one patch embedding;
* ``zero_pixels``: all tokens, those outside the window zeroed after one patch embedding;
* ``naive``: the image masked to the window and encoded anew, patch embedding and all.

The last two agree, which is checked.  They need long, so ``--windows`` windows per scale are timed
and the total is extrapolated, and said to be.  Weights are random: only time is measured.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.benchmarks.speed import measure
from zsad.components.windows import window_grid, window_patches
from zsad.types import FeatureRequest, Tap


def masked(image: Tensor, grid: tuple[int, int], patch: int, patches: Tensor) -> Tensor:
    """Return ``image`` [1, 3, S, S] with the pixels outside of ``patches`` set to zero."""
    inside = torch.zeros(grid[0] * grid[1], device=image.device)
    inside[patches.to(image.device)] = 1
    mask = inside.reshape(1, 1, *grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return image * mask


@torch.no_grad()
def compare(
    backbone: Backbone, image: Tensor, k: int, windows: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Time the three ways for one window size."""
    info = backbone.info
    grid = info.grid()
    rows, cols = window_grid(grid, k)
    total = rows * cols
    some = torch.linspace(0, total - 1, min(windows, total)).long()
    index = window_patches(grid, k)
    encoder = backbone.image_encoder()
    pre, _ = encoder.embed(image)
    positions = encoder.positions(grid)

    def subset() -> Tensor:
        return backbone.encode_image(image, request(Tap("window", k)))[Tap("window", k)]

    def naive() -> Tensor:
        images = torch.cat([masked(image, grid, info.patch, index[m]) for m in some])
        return backbone.encode_image(images, request(Tap("cls")))[Tap("cls")]

    def zeroed() -> Tensor:
        kept = torch.zeros(len(some), pre.shape[1], 1, dtype=torch.bool, device=pre.device)
        kept[:, 0] = True
        kept[torch.arange(len(some))[:, None], index[some] + 1] = True
        return encoder.run(torch.where(kept, pre, positions), {Tap("cls")})[Tap("cls")]

    ways = {"token_subset": subset, "zero_pixels": zeroed, "naive": naive}
    _, same, slow = (way() for way in ways.values())  # warm up
    seconds = measure.interleaved(ways, options.repeats, image.device.type, options.clock)
    scale = total / len(some)
    for way in ("zero_pixels", "naive"):
        seconds[way] = [s * scale for s in seconds[way]]
    times = measure.ratio(seconds["naive"], seconds["token_subset"])
    middle = {way: measure.spread(values)["median"] for way, values in seconds.items()}
    return {
        "k": k,
        "windows": total,
        "timed_windows_of_the_slow_ways": len(some),
        "token_subset_seconds": middle["token_subset"],
        "zero_pixels_seconds_extrapolated": middle["zero_pixels"],
        "naive_seconds_extrapolated": middle["naive"],
        "spread": {way: measure.spread(values) for way, values in seconds.items()},
        "times_faster_than_naive": times,
        "largest_difference_naive_zero_pixels": float((slow - same).abs().max()),
    }


def request(tap: Tap) -> FeatureRequest:
    return FeatureRequest.of(tap)


def main() -> None:
    parser = measure.options(__doc__)
    parser.add_argument("--backbone", default="vit-b-16-plus-240")
    parser.add_argument("--scales", default="2,3")
    parser.add_argument("--windows", type=int, default=16, help="timed windows of the slow ways")
    parser.add_argument("--quick", action="store_true", help="scale 2 only, 4 windows")
    options = parser.parse_args()
    scales = [2] if options.quick else [int(k) for k in options.scales.split(",")]
    torch.set_num_threads(options.threads)
    backbone = load(options.backbone, weights="random", device=options.device)
    side = backbone.info.image_size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    count = 4 if options.quick else options.windows
    image = image.to(options.device)
    results = [compare(backbone, image, k, count, options) for k in scales]
    document = {
        "conditions": measure.conditions(
            options.device,
            backbone=options.backbone,
            image_size=side,
            repeats=options.repeats,
            clock=options.clock,
        ),
        "scales": results,
        "times_faster": sum(r["naive_seconds_extrapolated"] for r in results)
        / sum(r["token_subset_seconds"] for r in results),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(measure.headline(document["conditions"]))
    for r in results:
        print(
            f"{r['k']}x{r['k']}, {r['windows']} windows of one image: "
            f"subsets {measure.shown(r['spread']['token_subset'], 1, 3)} s, "
            f"zeroed {measure.shown(r['spread']['zero_pixels'], 1, 1)} s*, "
            f"naive {measure.shown(r['spread']['naive'], 1, 1)} s*, "
            f"{measure.shown(r['times_faster_than_naive'], 1, 1)} times faster"
        )
    print(f"together {document['times_faster']:.1f} times faster")
    print(f"* extrapolated from {results[0]['timed_windows_of_the_slow_ways']} windows")
    print(
        "naive - zeroed: "
        f"{max(r['largest_difference_naive_zero_pixels'] for r in results):.1e} at most"
    )


if __name__ == "__main__":
    main()
