"""Time and memory of the metrics against a threshold-loop PRO, side by side.

    python -m zsad.benchmarks.speed.metrics [--quick] [--images 1000] [--json]

The streaming form computes all seven metrics of ``--images`` maps.  The loop goes through 200
thresholds region by region, as the released repositories do (``zsad.metrics.reference.aupro_200``):
once as released, finding the regions again at every threshold, and once with the regions found
only once, the kindest reading.  It computes one metric of a few images; its time grows linearly
with the number of images, so its total is extrapolated, and said to be.  Memory is the rise of
the process' peak resident set above the state with one batch of maps in memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad import maps as map_core
from zsad.metrics import CategoryMetrics, reference
from zsad.metrics.evaluate import evaluate
from zsad.metrics.histogram import ScoreHistogram

GRID = 37
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def batches(images: int, size: int, side: int, seed: int = 0) -> Iterator[Batch]:
    """Yield (maps, masks, image scores, labels): smooth maps, every second image anomalous with
    one to four regions of a thousandth to a hundredth of its area."""
    for start in range(0, images, size):
        random = torch.Generator().manual_seed(seed * 1_000_003 + start)
        count = min(size, images - start)
        labels = torch.arange(start, start + count) % 2
        masks = torch.zeros(count, side, side, dtype=torch.bool)
        for i in torch.nonzero(labels)[:, 0].tolist():
            for _ in range(int(torch.randint(1, 5, (1,), generator=random))):
                low, high = max(2, side // 30), max(4, side // 10)
                height, width = torch.randint(low, high, (2,), generator=random).tolist()
                top, left = torch.randint(0, side - high, (2,), generator=random).tolist()
                masks[i, top : top + height, left : left + width] = True
        logits = 2 * torch.randn(count, GRID, GRID, generator=random)
        smooth = map_core.upsample(logits, side, align_corners=False) + 1.5 * masks
        maps = map_core.gaussian_blur(torch.sigmoid(smooth), sigma=4 * side / 518)
        yield maps, masks, maps.amax((1, 2)), labels


def peak_megabytes() -> float:
    """Return the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def streaming(images: int, size: int, side: int) -> dict[str, Any]:
    """Time ``binned`` metrics; making the maps is not counted."""
    warm = CategoryMetrics()  # imports, first allocations of torch
    for batch in batches(2 * size, size, side, seed=1):
        warm.update(*batch)
    del warm, batch
    first = list(batches(size, size, side))  # one batch in memory: the base line
    before = peak_megabytes()
    del first
    metrics = CategoryMetrics()
    seconds = 0.0
    for batch in batches(images, size, side):
        start = time.perf_counter()
        metrics.update(*batch)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    result = metrics.compute()
    compute = time.perf_counter() - start
    state = metrics.pixel.metric_state["histogram"]
    assert isinstance(state, Tensor)
    return {
        "metrics": result.metrics,
        "bounds": result.bounds,
        "resolution": ScoreHistogram(state).resolution,
        "update_ms_per_image": 1000 * seconds / images,
        "compute_seconds": compute,
        "total_ms_per_image": 1000 * (seconds + compute) / images,
        "state_megabytes": state.numel() * 8 / 2**20,
        "peak_megabytes_above_one_batch": peak_megabytes() - before,
    }


def threshold_loop(images: int, side: int) -> dict[str, Any]:
    """Time the obvious loop on a few images and compare its value with the fast exact one."""
    maps, masks, scores, labels = next(batches(images, images, side))
    start = time.perf_counter()
    value = reference.aupro_200(maps.numpy(), masks.numpy())
    labelled_once = time.perf_counter() - start
    start = time.perf_counter()
    reference.aupro_200(maps.numpy(), masks.numpy(), relabel=True)
    released = time.perf_counter() - start
    start = time.perf_counter()
    fast = evaluate(maps, masks, scores, labels, aupro_200=True)
    exact = time.perf_counter() - start
    return {
        "images": images,
        "ms_per_image": 1000 * released / images,
        "ms_per_image_regions_once": 1000 * labelled_once / images,
        "exact_mode_ms_per_image": 1000 * exact / images,
        "difference_of_values": abs(value - fast["pixel_aupro_200"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--loop-images", type=int, default=8)
    parser.add_argument("--side", type=int, default=518, help="pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="64 images, 2 in the loop")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.images, options.loop_images = 64, 2
    torch.set_num_threads(options.threads)
    # memory first: the loop would raise the peak
    fast = streaming(options.images, options.batch, options.side)
    slow = threshold_loop(options.loop_images, options.side)
    document = {
        "conditions": {
            "images": options.images,
            "side": options.side,
            "batch": options.batch,
            "threads": options.threads,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "machine": platform.machine(),
        },
        "streaming": fast,
        "threshold_loop": slow,
        "times_faster": slow["ms_per_image"] / fast["total_ms_per_image"],
        "times_faster_regions_once": slow["ms_per_image_regions_once"] / fast["total_ms_per_image"],
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(f"{options.images} maps of {options.side}x{options.side}, {options.threads} thread(s)")
    print(
        f"streaming, 7 metrics       {fast['total_ms_per_image']:8.2f} ms per image"
        f"  ({fast['update_ms_per_image']:.2f} + compute {fast['compute_seconds']:.2f} s once)"
    )
    for title, key in (
        ("as released", "ms_per_image"),
        ("regions once", "ms_per_image_regions_once"),
    ):
        total = slow[key] * options.images / 1000
        print(
            f"loop, PRO, {title:<16}{slow[key]:8.2f} ms per image"
            f"  ({slow['images']} images; {total:.0f} s for all, extrapolated;"
            f" {slow[key] / fast['total_ms_per_image']:.0f} times slower)"
        )
    print(f"exact form                 {slow['exact_mode_ms_per_image']:8.2f} ms per image")
    memory, state = fast["peak_megabytes_above_one_batch"], fast["state_megabytes"]
    print(f"memory                     {memory:8.0f} MiB above one batch  (state {state:.0f} MiB)")
    print(f"bounds                     {max(fast['bounds'].values()):8.1e} at most")
    print(f"loop - fast                {slow['difference_of_values']:8.1e} on the same images")


if __name__ == "__main__":
    main()
