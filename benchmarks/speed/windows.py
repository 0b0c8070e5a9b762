"""Window embeddings as token subsets against encoding every masked window as an image.

    python benchmarks/speed/windows.py [--quick] [--backbone NAME] [--scales 2,3] [--json]

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
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from zsad.backbones import Backbone, load  # noqa: E402
from zsad.types import FeatureRequest, Tap  # noqa: E402
from zsad.windows import window_grid, window_patches  # noqa: E402


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Return the seconds of one call after a warm-up call, and its result."""
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def masked(image: Tensor, grid: tuple[int, int], patch: int, patches: Tensor) -> Tensor:
    """Return ``image`` [1, 3, S, S] with the pixels outside of ``patches`` set to zero."""
    inside = torch.zeros(grid[0] * grid[1], device=image.device)
    inside[patches.to(image.device)] = 1
    mask = inside.reshape(1, 1, *grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return image * mask


def measure(backbone: Backbone, image: Tensor, k: int, windows: int) -> dict[str, Any]:
    """Time the three ways for one window size."""
    info, device = backbone.info, image.device.type
    grid = info.grid()
    rows, cols = window_grid(grid, k)
    total = rows * cols
    some = torch.linspace(0, total - 1, min(windows, total)).long()
    index = window_patches(grid, k)

    subset, _ = timed(lambda: backbone.encode_image(image, request(Tap("window", k))), device)

    def encode_masked() -> Tensor:
        images = torch.cat([masked(image, grid, info.patch, index[m]) for m in some])
        return backbone.encode_image(images, request(Tap("cls")))[Tap("cls")]

    naive, slow = timed(encode_masked, device)
    encoder = backbone.image_encoder()
    pre, _ = encoder.embed(image)
    positions = encoder.positions(grid)

    def zeroed() -> Tensor:
        kept = torch.zeros(len(some), pre.shape[1], 1, dtype=torch.bool, device=pre.device)
        kept[:, 0] = True
        kept[torch.arange(len(some))[:, None], index[some] + 1] = True
        return encoder.run(torch.where(kept, pre, positions), {Tap("cls")})[Tap("cls")]

    with torch.no_grad():
        pixels, same = timed(zeroed, device)
    scale = total / len(some)
    return {
        "k": k,
        "windows": total,
        "timed_windows_of_the_slow_ways": len(some),
        "token_subset_seconds": subset,
        "zero_pixels_seconds_extrapolated": pixels * scale,
        "naive_seconds_extrapolated": naive * scale,
        "times_faster_than_naive": naive * scale / subset,
        "largest_difference_naive_zero_pixels": float((slow - same).abs().max()),
    }


def request(tap: Tap) -> FeatureRequest:
    return FeatureRequest.of(tap)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="vit-b-16-plus-240")
    parser.add_argument("--scales", default="2,3")
    parser.add_argument("--windows", type=int, default=16, help="timed windows of the slow ways")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="scale 2 only, 4 windows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    scales = [2] if options.quick else [int(k) for k in options.scales.split(",")]
    torch.set_num_threads(options.threads)
    backbone = load(options.backbone, weights="random", device=options.device)
    side = backbone.info.image_size
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    count = 4 if options.quick else options.windows
    results = [measure(backbone, image.to(options.device), k, count) for k in scales]
    document = {
        "conditions": {
            "backbone": options.backbone,
            "image_size": side,
            "device": options.device,
            "threads": options.threads,
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
        "scales": results,
        "times_faster": sum(r["naive_seconds_extrapolated"] for r in results)
        / sum(r["token_subset_seconds"] for r in results),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(
        f"one image, {options.backbone}, {side} px, {options.device}, {options.threads} thread(s)"
    )
    for r in results:
        print(
            f"{r['k']}x{r['k']}, {r['windows']} windows: "
            f"subsets {r['token_subset_seconds']:.2f} s, "
            f"zeroed {r['zero_pixels_seconds_extrapolated']:.1f} s*, "
            f"naive {r['naive_seconds_extrapolated']:.1f} s*"
            f"  ({r['times_faster_than_naive']:.1f} times faster)"
        )
    print(f"together {document['times_faster']:.1f} times faster")
    print(f"* extrapolated from {results[0]['timed_windows_of_the_slow_ways']} windows")
    print(
        "naive - zeroed: "
        f"{max(r['largest_difference_naive_zero_pixels'] for r in results):.1e} at most"
    )


if __name__ == "__main__":
    main()
