"""Whether flaws of 24 pixels are found in pictures of 12 megapixels, with tiles and without.

    python -m zsad.benchmarks.large_pictures [--count N] [--good N] [--tiles N|auto|none]
                                             [--false-alarms SHARE] [--seed N]

MaskCLIP on the bundled ``zsad-tiny``: thresholds are calibrated on ``--good`` sound pictures of a
generated cloudy surface, as ``zsad predict --calibrate`` does, and masks are made of ``--count``
sound pictures and ``--count`` with one dark round flaw.  A flaw is found if a marked pixel lies on
it.  Printed are the numbers of flaws found and of sound pictures without a region, and the heights
of the maps (:func:`zsad.runtime.thresholds.height`) that decide it.  ``--false-alarms``: the share
of sound pictures that may have a region; of the 5 % that ``zsad predict`` allows one in 20 is
expected, and none in 20 with 95 % confidence of the 0.25 % that are asked for here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from zsad.api import load_method
from zsad.inference.loaded_method import LoadedMethod
from zsad.runtime.thresholds import Thresholds, height

HEIGHT, WIDTH, FLAW = 3000, 4000, 24  # pixels
CLASS_NAME = "leather"
CLOUDS = ((40, 6.0), (4, 8.0))  # (pixels of a cloud, grey levels of its spread)
BROWN = (1.05, 0.8, 0.6)  # of a grey level, by channel


def picture(seed: int, flawed: bool) -> tuple[Image.Image, tuple[int, int]]:
    """A cloudy brown surface, and (x, y) of where its flaw has its top left corner."""
    rng = np.random.default_rng(seed)
    surface = np.full((HEIGHT, WIDTH), 130, dtype=np.float32)
    for cells, depth in CLOUDS:
        noise = rng.normal(0, depth, (HEIGHT // cells, WIDTH // cells)).astype(np.float32)
        grown = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        surface += np.asarray(grown)
    colours = np.stack([surface * factor for factor in BROWN], -1)
    found = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    x, y = int(rng.integers(50, WIDTH - 100)), int(rng.integers(50, HEIGHT - 100))
    if flawed:
        ImageDraw.Draw(found).ellipse([x, y, x + FLAW - 1, y + FLAW - 1], fill=(25, 20, 18))
    return found, (x, y)


@dataclass
class Outcome:
    """``found``: flaws with a marked pixel; ``clean``: sound pictures without a region; ``flawed``
    and ``sound``: the height of every map."""

    found: int = 0
    clean: int = 0
    flawed: list[float] = field(default_factory=list)
    sound: list[float] = field(default_factory=list)


def loaded(tiles: str) -> LoadedMethod:
    """The method; ``tiles``: as ``--tiles`` takes it, or "none"."""
    chosen = None if tiles == "none" else tiles
    return load_method("maskclip", backbone="zsad-tiny", device="cpu", tiles=chosen)


def calibrated(method: LoadedMethod, good: int, share: float, first: int = 100) -> Thresholds:
    """Thresholds from ``good`` sound pictures of the seeds from ``first`` on."""
    pictures = [np.asarray(picture(first + seed, False)[0]) for seed in range(good)]
    return method.calibrate(pictures, CLASS_NAME, false_alarms=share)


def measure(method: LoadedMethod, limits: Thresholds, count: int, first: int = 0) -> Outcome:
    """Masks of ``count`` flawed and ``count`` sound pictures that were not calibrated on;
    ``first``: as of all seeds."""
    outcome = Outcome()
    for seed in range(count):
        for flawed in (True, False):
            image, (x, y) = picture(first + (200 if flawed else 300) + seed, flawed)
            (found,) = method.predict([image], CLASS_NAME, explanations=0, thresholds=limits)
            mask, findings = found.mask, found.findings
            assert mask is not None
            assert findings is not None
            assert found.seen is not None
            tall = height(found.seen, method.framing.tiled)
            (outcome.flawed if flawed else outcome.sound).append(tall)
            if flawed:
                outcome.found += bool(mask[y : y + FLAW, x : x + FLAW].any())
            else:
                outcome.clean += not findings.regions
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of one set-up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=20, metavar="N")
    parser.add_argument("--good", type=int, default=20, metavar="N")
    parser.add_argument("--tiles", default="auto", metavar="N|auto|none")
    parser.add_argument("--false-alarms", type=float, default=0.0025, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all pictures")
    args = parser.parse_args(argv)
    start = time.process_time()
    method = loaded(args.tiles)
    first = 1000 * args.seed
    limits = calibrated(method, args.good, args.false_alarms, first + 100)
    outcome = measure(method, limits, args.count, first)
    least = limits.contrast if limits.rise is None else limits.rise
    seconds = (time.process_time() - start) / (2 * args.count + args.good)
    print(
        f"tiles {args.tiles}, calibrated on {args.good}, {args.false_alarms:.2%} false alarms: "
        f"of {args.count} each, flaws found: {outcome.found}, sound pictures without a region: "
        f"{outcome.clean}; heights from {min(outcome.flawed):.3g} with a flaw, up to "
        f"{max(outcome.sound):.3g} without, threshold {least:.3g}; {seconds:.1f} CPU s a picture"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
