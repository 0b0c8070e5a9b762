"""How long it takes to index a dataset of MVTec's size, and to decode and preprocess images.

    python -m zsad.benchmarks.speed.loading [--quick] [--images N] [--workers 0,1,2] [--json]

Indexing: a generated tree of 15 categories with 5,354 images and 1,258 masks (files of a few
bytes: an index opens none of them); the target is below one second.  Decoding: ``--images``
noisy PNG and JPEG files of 1024x1024 pixels through the loader at ``--size`` pixels, by number
of background threads; ``hidden`` is the share of decoding that disappears behind a consumer
that takes as long as decoding itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zsad.benchmarks.speed import measure
from zsad.data.catalog import load_spec
from zsad.data.index import load_index
from zsad.types import Sample

TRAIN, NORMAL, ANOMALOUS = 3629, 467, 1258


def write_tree(root: Path) -> int:
    """Write empty files in MVTec AD's layout; returns the number of images."""
    categories = list(load_spec("mvtec").categories)
    images = 0
    for at, category in enumerate(categories):
        home = root / "mvtec" / category

        def share(total: int, at: int = at) -> range:
            step = total // len(categories)
            return range(step + (total % len(categories) if at == 0 else 0))

        plan = [(home / "train" / "good", "{:03d}.png", share(TRAIN))]
        plan.append((home / "test" / "good", "{:03d}.png", share(NORMAL)))
        plan.append((home / "test" / "broken", "{:03d}.png", share(ANOMALOUS)))
        images += sum(len(numbers) for _, _, numbers in plan)
        plan.append((home / "ground_truth" / "broken", "{:03d}_mask.png", share(ANOMALOUS)))
        for folder, name, numbers in plan:
            folder.mkdir(parents=True)
            for i in numbers:
                (folder / name.format(i)).write_bytes(b"x")
    return images


def measure_index(repeats: int) -> dict[str, Any]:
    """Seconds to index the tree, cold (first) and warm (median of the others)."""
    with tempfile.TemporaryDirectory() as folder:
        images = write_tree(Path(folder))
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            index = load_index("mvtec", folder)
            seconds.append(time.perf_counter() - start)
        assert len(index.samples) == images
        assert index.counts() == (NORMAL, ANOMALOUS)
    warm = measure.spread(seconds[1:])
    return {"images": images, "first_s": seconds[0], "warm_s": warm["median"], "warm": warm}


def write_pictures(folder: Path, count: int, side: int = 1024) -> list[Sample]:
    """Half PNG, half JPEG, smooth noise as in photos."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        coarse = rng.integers(0, 255, (side // 8, side // 8, 3)).astype(np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        path = folder / f"{i}.{'png' if i % 2 else 'jpg'}"
        image.save(path)
        samples.append(Sample(str(path), 0, "thing", uid=path.name))
    return samples


def measure_decoding(
    count: int, size: int, workers: list[int], repeats: int
) -> list[dict[str, Any]]:
    """Images per second by number of threads, alone and behind a busy consumer."""
    from zsad.data.loader import batches
    from zsad.data.transforms import MaskPolicy, Preprocess

    preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        samples = write_pictures(Path(folder), count)

        def run(threads: int, pause: float) -> float:
            start = time.perf_counter()
            for _ in batches(samples, preprocess, MaskPolicy(), 4, threads, masks=False):
                time.sleep(pause)
            return time.perf_counter() - start

        run(0, 0.0)  # warm the file cache
        found: dict[int, list[tuple[float, float]]] = {threads: [] for threads in workers}
        for _ in range(repeats):
            for threads in workers:
                alone = run(threads, 0.0)
                pause = alone / (count / 4)  # a consumer as slow as decoding
                found[threads].append((alone, run(threads, pause)))
        for threads, pairs in found.items():
            hidden = [max(0.0, min(1.0, (2 * alone - busy) / alone)) for alone, busy in pairs]
            rows.append(
                {
                    "workers": threads,
                    "images_per_s": measure.spread([count / alone for alone, _ in pairs]),
                    "hidden": measure.spread(hidden),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 images of 112 pixels")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.images, args.size = 4, 112
    index = measure_index(args.repeats)
    workers = [int(w) for w in args.workers.split(",")]
    decoding = measure_decoding(args.images, args.size, workers, args.repeats)
    given = measure.conditions(images=args.images, size=args.size, repeats=args.repeats)
    if args.json:
        print(json.dumps({"conditions": given, "index": index, "decoding": decoding}))
        return
    print(measure.headline(given))
    print(
        f"index of {index['images']} images: first {index['first_s']:.3f} s, "
        f"warm {measure.shown(index['warm'], 1, 3)} s"
    )
    for row in decoding:
        print(
            f"decode at {args.size} px, {row['workers']} threads: "
            f"{measure.shown(row['images_per_s'], 1, 1)} images/s, "
            f"{measure.shown(row['hidden'], 100, 0)} % hidden behind an equally slow consumer"
        )


if __name__ == "__main__":
    main()
