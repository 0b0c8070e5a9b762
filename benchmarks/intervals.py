"""How often intervals of pixel metrics hold the true value: by simulation.

    python -m zsad.benchmarks.intervals [--runs N] [--resamples N]

Images with an effect of their own (their maps lie higher or lower as a whole, and defects stand out
more or less), so that pixels of one image depend on each other.  Their pixels are drawn into bins,
as a record holds them; the true value is that of very many images.  A table in Markdown says of how
many of the runs the interval of nominally 95 % held the truth, by metric, by the difficulty (the
true pixel AUROC) and by the number of normal and anomalous images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from zsad.metrics import spec
from zsad.metrics.pixel_statistics import Drawn, pixel_interval
from zsad.metrics.pixel_table import PixelTable

PIXELS, DEFECT = 4096, 256  # of an image, and of its defect
BINS = 96
OWN = 0.5  # deviation of an image's level, in deviations of its pixels
MANY = 20_000  # images whose metric counts as the true one
COUNTS = (5, 20, 100)  # images of each label
GAPS = {0.95: 3.0, 0.99: 4.75}  # how far defects stand out, by about the true pixel AUROC
LIMIT = 0.3  # false-positive rate of AUPRO


@dataclass(frozen=True)
class Coverage:
    """Of ``runs`` intervals of a metric, the share that held ``true``."""

    metric: str
    area: float
    count: int
    true: float
    share: float
    runs: int


def images(random: np.random.Generator, count: int, gap: float, drawn: bool = True) -> PixelTable:
    """``count`` normal and as many anomalous images; ``drawn``: pixels are drawn, or expected."""
    edges = np.linspace(8.0, -4.0, BINS - 1)
    anomalous = np.repeat([False, True], count)
    level = OWN * random.normal(size=2 * count)
    strength = gap * random.uniform(0.5, 1.5, size=2 * count)

    def binned(middle: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        above = norm.sf(edges[None] - middle[:, None])
        ends = np.concatenate([above, np.ones((len(middle), 1))], axis=1)
        shares = np.diff(ends, axis=1, prepend=0.0).clip(0)
        if not drawn:
            return size * shares
        return random.multinomial(size, shares / shares.sum(1, keepdims=True)).astype(float)

    found = np.zeros((2 * count, BINS))
    found[anomalous] = binned(level[anomalous] + strength[anomalous], DEFECT)
    alarms = np.zeros((2 * count, BINS))
    alarms[~anomalous] = binned(level[~anomalous], PIXELS)
    alarms[anomalous] = binned(level[anomalous], PIXELS - DEFECT)
    return PixelTable(alarms, found, found / DEFECT, anomalous.astype(float))


def value_of(table: PixelTable, metric: str) -> float:
    """The metric of the images of a table."""
    of = spec.resolve(spec.drawn()[metric].drawn)
    drawn = Drawn(
        table.anomalous.sum(0, keepdims=True),
        table.normal.sum(0, keepdims=True),
        table.overlap.sum(0, keepdims=True),
        table.regions.sum(keepdims=True),
        LIMIT,
    )
    return float(of(drawn)[0])


@cache
def truth(metric: str, gap: float) -> float:
    """The metric of very many images."""
    return value_of(images(np.random.default_rng(0), MANY, gap, drawn=False), metric)


def coverage(metric: str, area: float, count: int, runs: int, resamples: int) -> Coverage:
    """Simulate one line."""
    random = np.random.default_rng(1)
    gap, held = GAPS[area], 0
    true = truth(metric, gap)
    labels = np.repeat([0, 1], count)
    for run in range(runs):
        table = images(random, count, gap)
        found = pixel_interval(
            table, labels, metric, value_of(table, metric), LIMIT, resamples=resamples, seed=run
        )
        held += found.low <= true <= found.high
    return Coverage(metric, area, count, true, held / runs, runs)


def table(found: Sequence[Coverage]) -> str:
    """The lines as Markdown, percentages."""
    cells = {(c.metric, c.area, c.count): c for c in found}
    heads = [f"{n} + {n} images" for n in COUNTS]
    lines = ["| metric | true value | " + " | ".join(heads) + " |", "|---|---:" + "|---:" * 3 + "|"]
    for metric in spec.drawn():
        for area in GAPS:
            of = [cells[metric, area, n] for n in COUNTS]
            shares = " | ".join(f"{100 * c.share:.1f}" for c in of)
            title = spec.METRICS[metric].full_title
            lines.append(f"| {title} | {100 * of[0].true:.1f} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    args = parser.parse_args()
    found = [
        coverage(metric, area, count, args.runs, args.resamples)
        for metric in spec.drawn()
        for area in GAPS
        for count in COUNTS
    ]
    print(table(found))


if __name__ == "__main__":
    main()
