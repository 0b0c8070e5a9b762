"""Intervals and tests of pixel metrics: counts of images, against pixels drawn in plain loops."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor

from zsad.config import MetricSettings
from zsad.errors import RequestError
from zsad.metrics import CategoryMetrics, spec
from zsad.metrics.evaluate import evaluate
from zsad.metrics.image_pixels import BINS, ImagePixels
from zsad.metrics.pixel_statistics import pixel_interval, pixel_permutation
from zsad.metrics.pixel_table import PixelTable
from zsad.metrics.regions import region_pixels

SIDE = 24
Images = tuple[Tensor, Tensor, Tensor]


def images(count: int, gap: float, seed: int, spread: float = 1.0) -> Images:
    """Maps, masks and labels of images that differ from each other; two regions in each second."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    masks[1::2, 3:8, 3:9] = True
    masks[1::2, 15:18, 10:13] = True
    own = spread * torch.randn(count, 1, 1, generator=draw)
    noise = torch.randn(count, SIDE, SIDE, generator=draw)
    return noise + own + gap * masks * torch.rand(count, 1, 1, generator=draw), masks, labels


def taken(parts: Images, batch: int = 7, scale: float = 1.0) -> tuple[PixelTable, dict[str, float]]:
    """The table of images, and the exact metrics."""
    maps, masks, labels = parts
    metrics = CategoryMetrics.of(MetricSettings(mode="exact"))
    for i in range(0, len(maps), batch):
        part = slice(i, i + batch)
        metrics.update(scale * maps[part], masks[part], labels[part].float(), labels[part])
    table = metrics.pixel_table()
    assert table is not None
    return table, {k: v for k, v in metrics.compute().metrics.items() if v is not None}


def of_pixels(maps: Tensor, masks: Tensor) -> PixelTable:
    """The table alone, without any metric."""
    places, weights, _ = region_pixels(masks.numpy())
    found = ImagePixels()
    found.take(maps, torch.from_numpy(places), torch.from_numpy(weights))
    table = found.table()
    assert table is not None
    return table


def test_counts_are_those_of_the_pixels() -> None:
    maps, masks, labels = images(20, 2.0, 1)
    table, _ = taken((maps, masks, labels))
    np.testing.assert_array_equal(table.anomalous.sum(1), masks.flatten(1).sum(1))
    np.testing.assert_array_equal((table.normal + table.anomalous).sum(1), SIDE * SIDE)
    np.testing.assert_array_equal(table.regions, 2 * labels)
    np.testing.assert_allclose(table.overlap.sum(1), 2 * labels)
    assert table.normal.shape[1] <= 2 * BINS + 1


def test_the_way_in_batches_does_not_matter() -> None:
    parts = images(9, 2.0, 2)
    one, other = taken(parts, 1)[0], taken(parts, 9)[0]
    for name, value in asdict(one).items():
        np.testing.assert_array_equal(value, getattr(other, name))


@pytest.mark.parametrize("scale", [1.0, -0.0, 1e-30, 1e6])
def test_any_scale_is_taken(scale: float) -> None:
    """Maps of one value, too: every pixel in one bin."""
    table, exact = taken(images(12, 2.0, 3), scale=scale)
    found = pixel_interval(table, [0, 1] * 6, "pixel_auroc", exact["pixel_auroc"])
    assert 0 <= found.low <= found.value <= found.high <= 1
    if not scale:
        assert table.normal.shape[1] == 1
        assert (found.low, found.high) == (0.5, 0.5)


def test_an_interval_is_that_of_images_drawn_in_a_loop() -> None:
    """The ends lie near those of exact metrics of drawn images; the tails differ by design."""
    maps, masks, labels = parts = images(40, 3.0, 4)
    table, exact = taken(parts)
    random = np.random.default_rng(5)
    kinds = [np.flatnonzero(labels.numpy() == k) for k in (0, 1)]
    values: dict[str, list[float]] = {name: [] for name in spec.drawn()}
    for _ in range(100):
        rows = np.concatenate([random.choice(kind, len(kind)) for kind in kinds])
        drawn = evaluate(maps[rows], masks[rows], labels[rows].float(), labels[rows])
        for name, found in values.items():
            found.append(drawn[name])
    for name, of_loop in values.items():
        interval = pixel_interval(table, labels.numpy(), name, exact[name])
        low, high = np.quantile(of_loop, [0.025, 0.975])
        width = high - low
        assert interval.value == exact[name]
        assert abs(interval.low - low) < 0.35 * width, name
        assert abs(interval.high - high) < 0.35 * width, name


def test_equal_maps_differ_in_nothing_and_better_ones_do() -> None:
    maps, masks, labels = images(40, 1.0, 6)
    first, _ = taken((maps, masks, labels))
    again, _ = taken((torch.exp(3 * maps), masks, labels))  # another scale, the same order
    better, _ = taken((maps + 2.0 * masks, masks, labels))
    for metric in spec.drawn():
        same = pixel_permutation(first, again, metric)
        assert abs(same.difference) < 0.02
        assert same.p_value > 0.05
        found = pixel_permutation(first, better, metric)
        assert found.difference < 0
        assert found.p_value < 0.01


def test_the_test_holds_its_level() -> None:
    """Of methods that differ by chance alone, about one in twenty is called different."""
    p_values = []
    for seed in range(40):
        maps, masks, _ = images(16, 1.0, 100 + seed, spread=0.3)
        draw = torch.Generator().manual_seed(seed)
        noisy = [maps + torch.randn(maps.shape, generator=draw) for _ in range(2)]
        a, b = (of_pixels(m, masks) for m in noisy)
        p_values.append(pixel_permutation(a, b, "pixel_auroc", permutations=200).p_value)
    assert sum(p <= 0.05 for p in p_values) <= 6  # 2 expected; more than 6 once in 200 runs


def test_what_cannot_be_meant_is_refused() -> None:
    table, exact = taken(images(8, 2.0, 7))
    with pytest.raises(RequestError, match="4 normal and 4 anomalous images are too few"):
        pixel_interval(table, [0, 1] * 4, "pixel_ap", exact["pixel_ap"])
    with pytest.raises(RequestError, match="unknown pixel metric 'image_ap'"):
        pixel_permutation(table, table, "image_ap")


def test_undefined_metrics_have_no_table() -> None:
    maps, masks, labels = images(4, 2.0, 8)
    metrics = CategoryMetrics.of(MetricSettings())
    assert metrics.pixel_table() is None
    metrics.update(maps, None, labels.float(), labels)  # an anomalous image without a mask
    assert metrics.pixel_table() is None
    metrics.reset()
    metrics.update(maps[::2], masks[::2], labels[::2].float(), labels[::2])
    assert metrics.pixel_table() is None  # normal pixels only
    metrics.update(maps[1::2], masks[1::2], labels[1::2].float(), labels[1::2])
    table = metrics.pixel_table()
    assert table is not None
    assert len(table.regions) == 4
    other = CategoryMetrics.of(MetricSettings())
    other.update(maps, masks, labels.float(), labels)
    other.merge_state(metrics)
    merged = other.pixel_table()
    assert merged is not None
    assert len(merged.regions) == 8
    assert ImagePixels().table() is None
