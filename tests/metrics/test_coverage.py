"""Intervals of pixel metrics hold the truth as often as they say, by a small simulation."""

from __future__ import annotations

import numpy as np
import pytest

from zsad.benchmarks import intervals
from zsad.metrics import spec


def test_the_truth_is_that_of_very_many_images() -> None:
    """A few hundred drawn images lie near it, and the difficulty is what it is called."""
    many = intervals.images(np.random.default_rng(5), 400, intervals.GAPS[0.95])
    for metric in spec.drawn():
        true = intervals.truth(metric, intervals.GAPS[0.95])
        assert intervals.value_of(many, metric) == pytest.approx(true, abs=0.03), metric
    for area, gap in intervals.GAPS.items():
        assert intervals.truth("pixel_auroc", gap) == pytest.approx(area, abs=0.002)


@pytest.mark.parametrize("metric", list(spec.drawn()))
def test_intervals_of_few_images_hold_the_truth(metric: str) -> None:
    """Five images of each label, 60 runs: docs/reproduce.md has the larger table."""
    found = intervals.coverage(metric, 0.99, 5, runs=100, resamples=200)
    assert found.share >= 0.87  # percentiles of the draws hold 0.73 to 0.83


def test_the_table_has_a_line_for_every_metric_and_difficulty() -> None:
    found = [
        intervals.Coverage(metric, area, count, 0.5, 0.94, 10)
        for metric in spec.drawn()
        for area in intervals.GAPS
        for count in intervals.COUNTS
    ]
    lines = intervals.table(found).splitlines()
    assert lines[0] == "| metric | true value | 5 + 5 images | 20 + 20 images | 100 + 100 images |"
    assert len(lines) == 2 + 2 * len(spec.drawn())
    assert lines[2] == "| pixel AUROC | 50.0 | 94.0 | 94.0 | 94.0 |"
