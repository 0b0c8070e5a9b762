"""The pixels of every image over common bins, against plain loops over sorted pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fake_cuda import simulated
from zsad.metrics.image_pixels import BINS, LEVELS, LOWEST_RATE, RATIO, TINY, ImagePixels
from zsad.metrics.pixel_statistics import pixel_interval, pixel_permutation
from zsad.metrics.pixel_table import PixelTable
from zsad.metrics.regions import BatchRegions

SIDE = 20
Group = tuple[float, int, int, float]  # score, normal and anomalous pixels, overlap


def levels_of(row: np.ndarray) -> tuple[list[int], float, float]:
    """The level of each pixel, the lowest score and the step."""
    low, high = float(row.min()), float(row.max())
    step = (high - low) / (LEVELS - 1)
    if not step > TINY:
        return [0] * len(row), low, step
    kind = row.dtype.type
    heights = [(value - kind(low)) / kind(step) for value in row]
    return [min(max(int(h), 0), LEVELS - 1) for h in heights], low, step


def groups_of(row: np.ndarray, weight: np.ndarray) -> list[Group]:
    """The groups of one image's pixels, the highest first; ``weight`` is 0 of normal pixels."""
    levels, low, step = levels_of(row)
    order = sorted(range(len(row)), key=lambda i: -levels[i])
    ranks, power = set(), 0
    while int(RATIO**power) <= len(row):
        ranks.add(int(RATIO**power) - 1)
        power += 1
    starts = sorted({levels[order[rank]] for rank in ranks}, reverse=True)
    groups = []
    for at, top in enumerate(starts):
        end = starts[at + 1] if at + 1 < len(starts) else -1
        inside = [i for i in range(len(row)) if end < levels[i] <= top]
        found = [i for i in inside if weight[i] > 0]
        overlap = math.fsum(weight[i] for i in found)
        groups.append((low + step * top, len(inside) - len(found), len(found), overlap))
    return groups


def slow_table(images: list[tuple[np.ndarray, np.ndarray]]) -> PixelTable:
    """The table of images (scores [N], weights [N])."""
    every = [(i, g) for i, image in enumerate(images) for g in groups_of(*image)]
    every.sort(key=lambda pair: -pair[1][0])  # stable: images in their order where scores are equal
    normal = sum(g[1] for _, g in every)
    anomalous = sum(g[2] for _, g in every)
    ratio = -math.log(LOWEST_RATE) / (BINS - 1)
    alarms = hits = 0
    rates, shares = [], []
    for _, group in every:
        rates.append(alarms / normal)
        shares.append(math.floor(hits / anomalous * BINS))
        alarms, hits = alarms + group[1], hits + group[2]
    # as one array: numpy's logarithm of a single number may differ in the last bit
    heights = np.floor(np.log(np.maximum(rates, LOWEST_RATE) / LOWEST_RATE) / ratio)
    bins: list[list[tuple[int, Group]]] = []
    before: tuple[float, int, float] | None = None
    for pair, height, share in zip(every, heights, shares, strict=True):
        key = (float(height), share, pair[1][0])
        if before is None or (key[:2] != before[:2] and key[2] != before[2]):
            bins.append([])
        bins[-1].append(pair)
        before = key
    parts = np.zeros((3, len(images), len(bins)))
    for column, members in enumerate(bins):
        for image, group in members:
            parts[:, image, column] += group[1:]
    regions = [round(math.fsum(image[1])) for image in images]
    return PixelTable(parts[0], parts[1], parts[2], np.array(regions))


def maps_of(kind: str, count: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(len(kind))
    maps = torch.rand(count, SIDE, SIDE, generator=draw)
    changed: dict[str, Tensor] = {
        "unit": maps,
        "ties": (maps * 6).round() / 6,
        "constant": torch.full_like(maps, 0.25) + torch.arange(count)[:, None, None] / 8,
        "one value": torch.full_like(maps, -3.0),
        "negative": -1e6 + 1e5 * maps,
        "signs": maps - 0.5,
        "zeros": torch.where(maps < 0.5, torch.tensor(-0.0), 0 * maps),
        "tiny": 1e-37 * maps,
        "subnormal": 1e-42 * maps,
        "huge": 1e38 * (2 * maps - 1),
        "octaves": torch.exp(60 * maps - 30),
        "one apart": torch.nn.functional.pad(0 * maps[:, 1:], (0, 0, 0, 1), value=1.0),
        "double": maps.double() ** 3 + 1,
    }
    return changed[kind]


KINDS = ("unit", "ties", "constant", "one value", "negative", "signs", "zeros", "tiny",
         "subnormal", "huge", "octaves", "one apart", "double")  # fmt: skip


def masks_of(count: int = 5) -> Tensor:
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    masks[0, 2:6, 3:9] = True
    masks[0, 12, 12:15] = True
    masks[2, ::7, ::6] = True
    masks[3] = True
    return masks


def taken(maps: Tensor, masks: Tensor, seen: Tensor | None = None, batch: int = 9) -> PixelTable:
    found = ImagePixels()
    for start in range(0, len(maps), batch):
        part = slice(start, start + batch)
        own = None if seen is None else seen[part]
        places = BatchRegions(masks[part].cpu(), None if own is None else ~own)
        index, weights = places.on(maps.device)
        found.take(maps[part], index, weights, own)
    table = found.table()
    assert table is not None
    return table


def slowly(maps: Tensor, masks: Tensor, seen: Tensor | None = None) -> PixelTable:
    images = []
    for i in range(len(maps)):
        own = torch.ones_like(masks[i]) if seen is None else seen[i]
        places = BatchRegions(masks[i : i + 1], ~own[None]).found
        weight = np.zeros(masks[i].numel())
        weight[places.places] = places.weights
        kept = own.flatten().numpy()
        images.append((maps[i].flatten().numpy()[kept], weight[kept]))
    return slow_table(images)


def same(found: PixelTable, wanted: PixelTable) -> None:
    np.testing.assert_array_equal(found.normal, wanted.normal)
    np.testing.assert_array_equal(found.anomalous, wanted.anomalous)
    np.testing.assert_array_equal(found.regions, wanted.regions)
    np.testing.assert_allclose(found.overlap, wanted.overlap, rtol=0, atol=1e-13)
    stored = [table.overlap.astype(np.float32) for table in (found, wanted)]
    np.testing.assert_array_equal(*stored)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_those_of_plain_loops(kind: str) -> None:
    maps, masks = maps_of(kind), masks_of()
    wanted = slowly(maps, masks)
    for batch in (1, 2, 9):
        same(taken(maps, masks, batch=batch), wanted)


@pytest.mark.parametrize("kind", ["unit", "ties", "one value", "huge", "double"])
def test_a_device_counts_the_same(kind: str) -> None:
    maps, masks = maps_of(kind), masks_of()
    with simulated("cuda") as gpu:
        found = taken(maps.to("cuda"), masks)
        assert sum(n for line, n in gpu.waits.items() if "image_pixels" in line) == 1
    same(found, slowly(maps, masks))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ignored_pixels_and_images_of_which_nothing_is_left(device: str) -> None:
    maps, masks = maps_of("unit"), masks_of()
    seen = torch.rand(maps.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    seen[4] = False
    wanted = slowly(maps[:4], masks[:4], seen[:4])
    with simulated("cuda"):
        found = taken(maps.to(device), masks, seen)
    assert not (found.normal[4] + found.anomalous[4]).any()
    same(PixelTable(*(part[:4] for part in vars(found).values())), wanted)


def test_intervals_and_tests_do_not_depend_on_the_last_bit_of_overlaps() -> None:
    draw = torch.Generator().manual_seed(0)
    masks = torch.zeros(24, SIDE, SIDE, dtype=torch.bool)
    masks[::2, 4:11, 3:10] = True
    maps, others = (torch.rand(masks.shape, generator=draw) + masks for _ in range(2))
    labels = masks.flatten(1).any(1).long()
    one, other = taken(maps, masks), taken(others - 0.2 * masks, masks)
    slow, slower = slowly(maps, masks), slowly(others - 0.2 * masks, masks)
    for metric in ("pixel_aupro", "pixel_auroc", "pixel_ap", "pixel_f1max"):
        found = pixel_interval(one, labels, metric, 0.9, resamples=200)
        wanted = pixel_interval(slow, labels, metric, 0.9, resamples=200)
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
        pair = pixel_permutation(one, other, metric, permutations=200)
        assert pair.p_value == pixel_permutation(slow, slower, metric, permutations=200).p_value
