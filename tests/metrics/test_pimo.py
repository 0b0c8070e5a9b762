"""AUPIMO: known answers, the slow definition, another implementation, bounds, memory, merging."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zsad.errors import CellError
from zsad.metrics import pimo, reference
from zsad.metrics.base import MetricReport
from zsad.metrics.evaluate import evaluate
from zsad.metrics.pimo import PerImageOverlap
from zsad.metrics.spec import Mode

NAME = "aupimo"
SIDE = 200  # three normal images have 120,000 pixels


def metric(mode: Mode = "exact") -> PerImageOverlap:
    return PerImageOverlap((NAME,), mode=mode)


def stack(seed: int = 0, ties: int = 0, anomalous: int = 3, normal: int = 4):
    """Normal and anomalous images in turns; the maps find part of every defect."""
    random = np.random.default_rng(seed)
    masks = np.zeros((normal + anomalous, SIDE, SIDE), dtype=bool)
    for i in range(anomalous):
        masks[2 * i, 10 + i : 60 + 9 * i, 20:90] = True
    maps = random.gumbel(size=masks.shape) + 20 * random.random(masks.shape) * masks
    if ties:
        maps = np.round(maps * ties) / ties
    return torch.from_numpy(maps), torch.from_numpy(masks)


def found(
    maps: torch.Tensor, masks: torch.Tensor, mode: Mode = "exact", size: int = 3
) -> MetricReport:
    made = metric(mode)
    for start in range(0, len(maps), size):
        made.update(maps[start : start + size], masks[start : start + size])
    return made.report()


def test_known_answers() -> None:
    """Three normal images, rates 1/120,000 apart; a defect that outranks all, none or half."""
    normal = torch.arange(3 * SIDE * SIDE, dtype=torch.float64).reshape(3, SIDE, SIDE)
    masks = torch.zeros(6, SIDE, SIDE, dtype=torch.bool)
    masks[3:, :10, :10] = True
    maps = torch.cat([normal, torch.zeros(3, SIDE, SIDE, dtype=torch.float64)])
    maps[3, :10, :10] = 1e6  # above all
    maps[4, :10, :10] = -1.0  # below all
    maps[5, :5, :10] = 1e6  # half of it
    report = found(maps, masks)
    assert report.per_image[NAME] == [None, None, None, 1.0, 0.0, 0.5]
    assert report.metrics[NAME] == pytest.approx(0.5)
    # A defect that is found from the third-highest normal score on, between the ranks 2 and 3:
    # rate 3 / 120,000 = 2.5e-5 at the end of the step that begins at 2 / 120,000.
    maps[5, :10, :10] = normal.max() - 2 + 0.5
    share = (np.log10(1e-4) - np.log10(2 / 120_000)) / 1
    assert found(maps, masks).per_image[NAME][5] == pytest.approx(share)


@pytest.mark.parametrize("ties", [0, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_slow_definition(seed: int, ties: int) -> None:
    maps, masks = stack(seed, ties)
    expected = reference.aupimo_per_image(maps.numpy(), masks.numpy())
    report = found(maps, masks)
    values = [v for v in report.per_image[NAME] if v is not None]
    assert values == pytest.approx(expected, abs=1e-12)
    assert report.metrics[NAME] == pytest.approx(reference.aupimo(maps.numpy(), masks.numpy()))
    assert 0.1 < report.metrics[NAME] < 0.9  # not a trivial case


@pytest.mark.skipif(
    importlib.util.find_spec("anomalib") is None, reason="anomalib is not installed"
)
def test_equals_anomalib() -> None:
    """Its thresholds are evenly spaced, ours are all there are: the curves differ by a sample."""
    from anomalib.metrics.pimo.functional import aupimo_scores

    maps, masks = stack(normal=30, anomalous=4)
    theirs = aupimo_scores(maps.float(), masks, 300_000)[4]
    ours = found(maps.float(), masks).per_image[NAME]
    for value, other in zip(ours, theirs.tolist()):
        if value is not None:
            assert value == pytest.approx(other, abs=0.02)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 100]))
@example(122, 100)
def test_the_binned_form_stays_within_its_bound(seed: int, ties: int) -> None:
    maps, masks = stack(seed, ties)
    maps = maps.float()
    exact, binned = found(maps, masks), found(maps, masks, "binned")
    assert exact.bounds == {}
    assert (NAME in exact.metrics) == (NAME in binned.metrics)
    if exact.metrics.get(NAME) is None:  # too many ties among the highest scores
        assert binned.metrics.get(NAME) is None
        return
    assert binned.bounds[NAME] == pytest.approx(1 / 4096)  # every defect has over 2,048 pixels
    for a, b in zip(exact.per_image[NAME], binned.per_image[NAME]):
        assert (a is None) == (b is None)
        assert a is None or abs(a - b) <= 1 / 4096 + 1e-12
    small = masks.clone()
    small[:, 40:] = False  # defects of at most 2,048 pixels are kept whole
    small[:, :, 85:] = False
    assert found(maps, small, "binned").bounds[NAME] == 0
    assert found(maps, small, "binned").metrics == found(maps, small).metrics


@pytest.mark.parametrize("mode", ["exact", "binned"])
def test_batches_order_and_merging_change_nothing(mode: Mode, monkeypatch) -> None:
    maps, masks = stack()
    whole = found(maps, masks, mode)
    monkeypatch.setattr(pimo, "HIGHEST", 500)  # pixels are dropped again and again
    order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(0))
    for size in (1, 2, 7):
        assert found(maps, masks, mode, size) == whole
        turned = found(maps[order], masks[order], mode, size)
        assert turned.metrics == pytest.approx(whole.metrics)
    parts = [metric(mode) for _ in range(3)]
    parts[0].update(maps[:5], masks[:5])
    parts[2].update(maps[5:], masks[5:])
    for other in parts[1:]:
        parts[0].merge_state(other)
    assert parts[0].report() == whole
    assert float(parts[0].compute()[NAME]) == pytest.approx(whole.metrics[NAME])


def test_memory_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(pimo, "HIGHEST", 1000)
    made = metric("binned")
    for seed in range(10):
        made.update(*stack(seed))
    kept = sum(map(len, made.top))
    assert kept <= 2 * 1000
    assert sum(map(len, made.points)) == 30 * pimo.POINTS
    assert made.report().metrics[NAME] is not None


# -------------------------------------------------------------------------------- undefined
def test_rates_that_cannot_be_told_are_undefined_with_the_reason(monkeypatch) -> None:
    maps, masks = stack()

    def why(maps: torch.Tensor, masks: torch.Tensor) -> str:
        report = found(maps, masks)
        assert report.metrics == {NAME: None}
        return report.undefined[NAME]

    assert "at least 100,000 normal pixels" in why(maps[:, :90, :90], masks[:, :90, :90])
    assert "that of 1.0e+00 of their pixels" in why(torch.zeros_like(maps), masks)
    assert why(maps[:1], masks[:1]).startswith("no normal images")
    assert why(maps, torch.zeros_like(masks)) == "no image has anomalous pixels"
    flat = torch.where(masks, maps, 0.0)
    flat[1, 0, 0] = 9.0  # one pixel stands out, all the others are alike
    assert "too many of their pixels share one score" in why(flat, masks)
    monkeypatch.setattr(pimo, "HIGHEST", 3)
    assert "do not reach the false-positive rate" in why(maps, masks)
    made = metric()
    made.update(maps, masks, without_mask=2)
    assert made.report().undefined == {NAME: "2 of the anomalous images have no mask"}
    with pytest.raises(CellError, match="hold 1 value that is NaN"):
        metric().update(torch.full((1, 1, 1), torch.nan), None)


def test_an_anomalous_image_with_an_empty_mask_is_neither_normal_nor_averaged() -> None:
    maps, masks = stack()
    labels = masks.flatten(1).any(1).long()
    masks[0] = False
    maps[0] += 100  # would ruin the rates of the normal images
    made = metric()
    made.update(maps, masks, labels)
    report = made.report()
    assert report.per_image[NAME][0] is None
    assert report.metrics == found(maps[1:], masks[1:]).metrics


def test_evaluate_gives_it_with_the_values_of_the_images() -> None:
    maps, masks = stack()
    labels = masks.flatten(1).any(1).long()
    result = evaluate(maps, masks, labels.double(), labels)
    ((name, values),) = result["per_image"].items()
    assert len(values) == len(maps)
    assert [v is None for v in values] == [not x for x in labels]
    assert result[name] == pytest.approx(np.mean([v for v in values if v is not None]))
    assert result["undefined"] == {}
