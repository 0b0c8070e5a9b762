"""Pixels that are counted on a device: the counts of the CPU, and hardly a wait."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fake_cuda import simulated
from zsad.config import MetricSettings
from zsad.metrics import CategoryMetrics, MetricResult
from zsad.metrics.regions import BatchRegions


def batch(turn: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Maps with ties, of a range that grows from turn to turn and falls below 0 in the last."""
    draw = torch.Generator().manual_seed(turn)
    maps = torch.rand(4, 40, 40, generator=draw) ** (1 + 4 * turn)
    maps[:, :10] = 0.25
    maps = 5 * maps - 2 if turn == 3 else maps
    masks = torch.zeros(4, 40, 40, dtype=torch.bool)
    masks[::2, 5:15, 12:30] = True
    masks[0, 30:33, 1:4] = True
    return maps, masks, torch.rand(4, generator=draw), torch.tensor([1, 0, 1, 0])


def filled(device: str, turns: range) -> CategoryMetrics:
    place = None if device == "cpu" else torch.device(device)
    metrics = CategoryMetrics.of(MetricSettings(), device=place)
    for turn in turns:
        maps, masks, scores, labels = batch(turn)
        metrics.update(maps.to(device), masks, scores, labels, regions=BatchRegions(masks))
    return metrics


def same(found: MetricResult, wanted: MetricResult) -> None:
    """Counts are equal; the overlaps of regions are sums, whose order may differ."""
    assert found.metrics == pytest.approx(wanted.metrics, abs=1e-12)
    assert found.bounds == pytest.approx(wanted.bounds, abs=1e-12)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_counts_are_those_of_the_cpu(kind: str) -> None:
    wanted = filled("cpu", range(4))
    with simulated(kind):
        metrics = filled(kind, range(4))
        same(metrics.compute(), wanted.compute())
        found, expected = metrics.pixel_table(), wanted.pixel_table()
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.normal, expected.normal)
    np.testing.assert_array_equal(found.anomalous, expected.anomalous)
    np.testing.assert_allclose(found.overlap, expected.overlap, atol=1e-12)


def test_what_is_merged_copied_or_begun_anew_counts_on() -> None:
    wanted = filled("cpu", range(4)).compute()
    with simulated("cuda"):
        first, second = filled("cuda", range(2)), filled("cuda", range(2, 4))
        first.merge_state(second)
        same(first.compute(), wanted)
        again = filled("cuda", range(3))
        again.reset()
        for turn in range(4):
            maps, masks, scores, labels = batch(turn)
            again.update(maps.to("cuda"), masks, scores, labels)
        same(again.compute(), wanted)


def test_a_copy_and_a_pickle_do_not_share_what_they_count() -> None:
    wanted = filled("cpu", range(4)).compute()
    half = filled("cpu", range(2))
    for other in (copy.deepcopy(half), pickle.loads(pickle.dumps(half))):
        for turn in (2, 3):
            maps, masks, scores, labels = batch(turn)
            other.update(maps, masks, scores, labels)
        same(other.compute(), wanted)
    same(half.compute(), filled("cpu", range(2)).compute())


def test_ignored_pixels_are_left_out_there_too() -> None:
    maps, masks, scores, labels = batch(0)
    hidden = torch.zeros_like(masks)
    hidden[:, 8:20, 20:35] = True
    results = []
    with simulated("cuda"):
        for device in ("cpu", "cuda"):
            metrics = CategoryMetrics.of(MetricSettings())
            metrics.update(maps.to(device), masks, scores, labels, ignored=hidden)
            results.append((metrics.compute(), metrics.pixel_table()))
    same(results[1][0], results[0][0])
    np.testing.assert_array_equal(results[1][1].normal, results[0][1].normal)  # type: ignore[union-attr]


def test_the_state_is_made_on_the_device_and_never_goes_up() -> None:
    with simulated("cuda") as gpu:
        filled("cuda", range(1))
    largest = max(gpu.up_bytes.values())
    assert largest <= 8 * 4100, gpu.up_bytes  # a header, not a histogram of 7 MB
