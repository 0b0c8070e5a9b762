"""The order-preserving histogram: order, resolution, independence of order, error bounds."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsad.errors import CellError
from zsad.metrics import functional, reference
from zsad.metrics.functional import Curve
from zsad.metrics.histogram import (
    BLOCKS,
    FINE,
    FRESH,
    MIXED,
    ScoreHistogram,
    empty_histogram,
    key_values,
    merge_histograms,
    order_keys,
)
from zsad.metrics.pixel import BINS
from zsad.metrics.regions import region_pixels

SMALL = BLOCKS  # the coarsest histogram allowed: one bin per block if all are used
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def filled(parts: list[tuple[torch.Tensor, torch.Tensor]], bins: int = SMALL) -> ScoreHistogram:
    """Histogram of (scores, anomalous) parts, every weight 1."""
    histogram = ScoreHistogram(empty_histogram(bins))
    for scores, anomalous in parts:
        histogram.add(scores)
        chosen = scores[anomalous]
        histogram.mark_anomalous(chosen, torch.ones(len(chosen), dtype=torch.float64))
    return histogram


def spread(random: np.random.Generator, count: int, scale: str) -> torch.Tensor:
    """Scores whose scale a histogram with a fixed range would not survive."""
    if scale == "unit":
        values = random.random(count)
    elif scale == "narrow":
        values = 0.5 + 1e-4 * random.standard_normal(count)
    elif scale == "octaves":
        values = np.exp(30 * random.standard_normal(count)) * random.choice([-1, 1], count)
    elif scale == "logits":
        values = -1e6 + 1e5 * random.standard_normal(count)
    else:
        values = np.round(4 * random.standard_normal(count)) / 4
    return torch.from_numpy(values.clip(-3e38, 3e38).astype(np.float32))


SCALES = st.sampled_from(["unit", "narrow", "octaves", "logits", "ties"])


# ------------------------------------------------------------------------------------- keys
@given(st.lists(finite, min_size=2, max_size=30))
def test_keys_have_the_order_of_the_scores_and_can_be_undone(values):
    scores = torch.tensor(values, dtype=torch.float32)
    keys = order_keys(scores).to(torch.int64)
    assert torch.equal(keys[:, None] < keys[None], scores[:, None] < scores[None])
    assert torch.equal(keys[:, None] == keys[None], scores[:, None] == scores[None])
    np.testing.assert_array_equal(key_values(keys.numpy().astype(np.int32)), scores.numpy())


def test_keys_leave_their_input_alone():
    scores = torch.tensor([-0.0, 1.0])
    order_keys(scores)
    assert str(scores.tolist()) == "[-0.0, 1.0]"


# ----------------------------------------------------------------------------------- counts
def test_counts_by_hand():
    scores = torch.tensor([0.5, 0.5, -2.0, 100.0, 0.0, -0.0])
    anomalous = torch.tensor([True, False, False, True, False, True])
    curve = filled([(scores, anomalous)]).curve(regions=3)
    assert curve.thresholds.tolist() == [100.0, 0.5, 0.0, -2.0]
    assert curve.anomalous.tolist() == [1, 1, 1, 0]
    assert curve.normal.tolist() == [0, 1, 1, 1]
    assert curve.overlap is not None
    assert curve.overlap.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert not curve.mixed.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), SCALES, st.integers(1, 4))
def test_bins_do_not_depend_on_order_or_on_division(seed, scale, processes):
    """One histogram of all scores equals merged ones, in any order: bit by bit in what counts."""
    random = np.random.default_rng(seed)
    scores = spread(random, 400, scale)
    anomalous = torch.from_numpy(random.random(400) < 0.3)
    whole = filled([(scores, anomalous)]).curve(9)
    shuffle = torch.from_numpy(random.permutation(400))
    shares = [filled([(scores[i], anomalous[i])]).state for i in shuffle.chunk(processes)]
    merged = ScoreHistogram(merge_histograms(torch.stack(shares))).curve(9)
    np.testing.assert_array_equal(merged.thresholds, whole.thresholds)
    np.testing.assert_array_equal(merged.normal, whole.normal)
    np.testing.assert_array_equal(merged.anomalous, whole.anomalous)
    np.testing.assert_array_equal(merged.mixed, whole.mixed)
    np.testing.assert_allclose(merged.overlap, whole.overlap, atol=1e-12)


def slow_state(
    scores: np.ndarray, weights: np.ndarray, bins: int
) -> tuple[dict[int, int], dict[str, list[float]]]:
    """The slots of the blocks and what every bin holds, score by score; weight 0: normal."""
    keys = []
    for score in (scores + 0.0).tolist():
        bits = struct.unpack("<I", struct.pack("<f", score))[0]
        keys.append(bits if bits < 1 << 31 else -1 - (bits - (1 << 31)))
    slots = {block: slot for slot, block in enumerate(sorted({key >> FINE for key in keys}))}
    fine = min(FINE, (bins // len(slots)).bit_length() - 1)
    total, anomalous = [0] * bins, [0] * bins
    overlap, sample = [Fraction(0)] * bins, [FRESH] * bins
    for key, weight in zip(keys, weights.tolist(), strict=True):
        place = (slots[key >> FINE] << fine) + ((key & ((1 << FINE) - 1)) >> (FINE - fine))
        total[place] += 1
        anomalous[place] += weight > 0
        overlap[place] += Fraction(weight)
        sample[place] = key if sample[place] in (FRESH, key) else MIXED
    parts = {"total": total, "anomalous": anomalous, "overlap": overlap, "sample": sample}
    return slots, {name: [float(v) for v in part] for name, part in parts.items()}


def special(random: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """Scores at the limits of what a map can hold."""
    values = random.random(count)
    changed = {
        "equal": np.full(count, 0.3),
        "signed zeros": random.choice([-0.0, 0.0], count),
        "subnormal": 1e-41 * (values - 0.5),
        "huge": 3.4e38 * (2 * values - 1),
        "zeros and more": np.where(values < 0.6, 0, values),
        "above zero": np.exp(-20 * values),
        "below zero": -np.exp(-20 * values),
        "two values": random.choice([0.25, np.nextafter(np.float32(0.25), np.float32(1))], count),
        "one high": np.where(np.arange(count) == count - 1, 1e6, 0.5 + values / 8),
        "in turn": np.repeat(values[: count // 3 + 1], 3)[:count],
    }
    return changed[kind].astype(np.float32)


SPECIAL = ("equal", "signed zeros", "subnormal", "huge", "zeros and more", "above zero",
           "below zero", "two values", "one high", "in turn")  # fmt: skip


@pytest.mark.parametrize("kind", [*SPECIAL, "unit", "narrow", "octaves", "logits", "ties"])
@pytest.mark.parametrize(("chunk", "few"), [(1 << 17, 1 << 12), (7, 3), (64, 1)])
def test_the_whole_state_is_that_of_a_plain_loop(
    kind: str, chunk: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, in parts of any size and merged; borders of chunks between any two scores."""
    monkeypatch.setattr("zsad.metrics.histogram.CHUNK", chunk)
    monkeypatch.setattr("zsad.metrics.histogram.FEW", few)
    random = np.random.default_rng(len(kind))
    count = 300
    scores = (
        special(random, count, kind) if kind in SPECIAL else spread(random, count, kind).numpy()
    )
    weights = np.where(random.random(count) < 0.3, 1 / random.integers(1, 50, count), 0)
    slots, parts = slow_state(scores, weights, SMALL)

    def of(pieces: list[np.ndarray]) -> ScoreHistogram:
        made = ScoreHistogram(empty_histogram(SMALL))
        for own in pieces:
            made.add(torch.from_numpy(scores[own]))
            hit = own[weights[own] > 0]
            made.mark_anomalous(torch.from_numpy(scores[hit]), torch.from_numpy(weights[hit]))
        return made

    order = np.arange(count)
    halves = [of([order[::2]]).state, of([order[1::2]]).state]
    ways = [
        of([order]),
        of([random.permutation(order)]),
        of(np.array_split(order, 6)),
        of([order[:0], order[:1], order[1:]]),
        ScoreHistogram(merge_histograms(torch.stack(halves))),
    ]
    for found in ways:
        used = {int(block) - BLOCKS // 2: i for i, block in enumerate(found.blocks)}
        assert used == slots
        for name, wanted in parts.items():
            held = getattr(found, name).double().numpy()
            slack = 1e-13 if name == "overlap" else 0
            np.testing.assert_allclose(held, wanted, rtol=0, atol=slack, err_msg=name)


def test_merging_with_empty_histograms():
    some = filled([(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))])
    empty = empty_histogram(SMALL)
    for states in ([some.state, empty], [empty, some.state], [empty, some.state, empty]):
        curve = ScoreHistogram(merge_histograms(torch.stack(states))).curve(1)
        assert curve.thresholds.tolist() == [2.0, 1.0]
    assert len(ScoreHistogram(merge_histograms(torch.stack([empty, empty]))).curve(0).normal) == 0


def test_merging_needs_equal_sizes():
    with pytest.raises(ValueError, match="cannot merge histograms of 4096 and 8192 bins"):
        ScoreHistogram(empty_histogram(SMALL)).merge(ScoreHistogram(empty_histogram(2 * SMALL)))


@pytest.mark.parametrize("bins", [1000, 2048, 5000])
def test_odd_bin_counts_are_refused(bins):
    with pytest.raises(ValueError, match="power of two"):
        empty_histogram(bins)


# ------------------------------------------------------------------------------- resolution
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), SCALES)
def test_scores_of_one_bin_agree_to_the_stated_resolution(seed, scale):
    scores = spread(np.random.default_rng(seed), 2000, scale)
    histogram = filled([(scores, torch.zeros(2000, dtype=torch.bool))])
    places = histogram._places(order_keys(scores)).numpy()
    values = scores.double().numpy()
    values[np.abs(values) < 2.0**-126] = 0  # subnormal: may share a bin with 0
    for place in np.unique(places):
        inside = values[places == place]
        least, most = np.abs(inside).min(), np.abs(inside).max()
        assert np.ptp(inside) <= histogram.resolution * most
        assert (inside < 0).all() or (inside >= 0).all()
        assert most <= 2 * least or most == least


def test_resolution_in_numbers():
    """The figures of the module's docstring, at the default size."""
    histogram = ScoreHistogram(empty_histogram(BINS))
    histogram.add(torch.linspace(0.01, 1.0, 100_000))
    assert histogram.used == 55
    assert histogram.resolution == 2.0**-15
    octave = ScoreHistogram(empty_histogram(BINS))
    octave.add(torch.linspace(0.5, 0.9999, 10_000))
    assert octave.used == 8
    assert octave.resolution == 2.0**-18
    worst = ScoreHistogram(empty_histogram(BINS))
    worst._open(torch.arange(8, BLOCKS - 8))
    assert worst.resolution == 2.0**-9
    exact = ScoreHistogram(empty_histogram(1 << 20))
    exact.add(torch.linspace(0.5, 0.56, 1000))
    assert exact.fine == FINE
    assert exact.resolution == 0


@pytest.mark.parametrize("low", [0.3, -0.9])
def test_the_path_without_table_equals_the_one_with(low):
    """Blocks in one piece are found by subtraction, others by look-up: the same bins."""
    scores = torch.linspace(low, low + 0.2, 3000)
    histogram = filled([(scores, torch.zeros(3000, dtype=torch.bool))])
    assert histogram.start is not None
    direct = histogram._places(order_keys(scores))
    histogram.start = None
    assert torch.equal(direct, histogram._places(order_keys(scores)))
    histogram.add(torch.tensor([0.0]))  # far from the others: no longer in one piece
    assert histogram.start is None
    assert int(histogram.total.sum()) == 3001


def test_a_known_tie_is_no_error_and_a_mixed_bin_is():
    close = torch.tensor([0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))])
    many = torch.linspace(-8, 8, 5000)
    truth = torch.tensor([True, False])
    rest = torch.zeros(5000, dtype=torch.bool)
    tied = filled([(close[:1].repeat(2), truth)]).curve(1)
    assert functional.auroc_bound(tied) == 0
    mixed = filled([(many, rest), (close, truth)]).curve(1)
    assert functional.auroc_bound(mixed) > 0


# ------------------------------------------------------------------------------ error bounds
@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**31), SCALES, st.integers(2, 400), st.floats(0.02, 0.9))
def test_binned_values_lie_within_their_bounds(seed, scale, count, share):
    """Against exact curves, with so few bins that the bounds are put to use."""
    random = np.random.default_rng(seed)
    masks = random.random((2, count, 3)) < share
    masks.flat[0], masks.flat[-1] = True, False
    scores = spread(random, masks.size, scale).reshape(masks.shape)
    _, weights, regions = region_pixels(masks)
    histogram = ScoreHistogram(empty_histogram(SMALL))
    histogram.add(scores.flatten())
    # every block of the float range in use: the coarsest bins that can ever occur
    histogram._open(torch.nonzero(histogram.slots[8:-8] < 0)[:, 0] + 8)
    histogram.mark_anomalous(scores[torch.from_numpy(masks)], torch.from_numpy(weights))
    binned = histogram.curve(regions)
    maps = scores.numpy()
    exact = Curve.from_scores(maps[~masks], maps[masks], weights, regions)
    slack = 1e-12
    for metric, bound in (
        (functional.auroc, functional.auroc_bound),
        (functional.average_precision, functional.average_precision_bound),
        (functional.f1_max, functional.f1_max_bound),
    ):
        assert abs(metric(binned) - metric(exact)) <= bound(binned) + slack, metric.__name__
    assert functional.f1_max(binned) <= functional.f1_max(exact) + slack
    for limit in (0.05, 0.3, 1.0):
        error = abs(functional.aupro(binned, limit) - functional.aupro(exact, limit))
        assert error <= functional.aupro_bound(binned, limit) + slack


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), SCALES)
def test_binned_aupro_lies_within_its_bound_of_brute_force(seed, scale):
    random = np.random.default_rng(seed)
    masks = random.random((3, 8, 8)) < 0.3
    masks.flat[0], masks.flat[-1] = True, False
    scores = spread(random, masks.size, scale).reshape(masks.shape)
    _, weights, regions = region_pixels(masks)
    histogram = ScoreHistogram(empty_histogram(SMALL))
    histogram.add(scores.flatten())
    histogram.mark_anomalous(scores[torch.from_numpy(masks)], torch.from_numpy(weights))
    curve = histogram.curve(regions)
    error = abs(functional.aupro(curve) - reference.aupro(scores.numpy(), masks))
    assert error <= functional.aupro_bound(curve) + 1e-12


def test_bounds_are_small_for_maps_in_any_usual_range():
    """Default bins: far below a tenth of a point, even for maps within 1e-3 of 0.5."""
    random = np.random.default_rng(0)
    masks = random.random((1, 400, 500)) < 0.05
    for low, width in ((0, 1), (0.4995, 1e-3), (-20, 40), (0.07, 1e-2)):
        maps = (low + width * (0.7 * random.random(masks.shape) + 0.3 * masks)).astype(np.float32)
        _, weights, regions = region_pixels(masks)
        histogram = ScoreHistogram(empty_histogram(BINS))
        histogram.add(torch.from_numpy(maps).flatten())
        histogram.mark_anomalous(torch.from_numpy(maps[masks]), torch.from_numpy(weights))
        curve = histogram.curve(regions)
        assert functional.auroc_bound(curve) < 2e-4
        assert functional.average_precision_bound(curve) < 1e-3
        assert functional.f1_max_bound(curve) < 5e-4
        assert functional.aupro_bound(curve) < 5e-4


# ----------------------------------------------------------------------------------- faults
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -float("nan")])
def test_values_that_are_no_scores_are_refused(bad):
    histogram = ScoreHistogram(empty_histogram(SMALL))
    with pytest.raises(CellError, match="hold 2 values that are NaN or infinite"):
        histogram.add(torch.tensor([0.1, bad, 0.3, bad]))
    assert not histogram.used


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -float("nan")])
@pytest.mark.parametrize("few", [1, 4])
def test_all_that_are_no_scores_are_counted_wherever_they_lie(bad, few, monkeypatch):
    monkeypatch.setattr("zsad.metrics.histogram.CHUNK", 2)
    monkeypatch.setattr("zsad.metrics.histogram.FEW", few)
    held = ScoreHistogram(empty_histogram(SMALL))
    held.add(torch.tensor([0.2, 0.3]))
    before = held.state.clone()
    with pytest.raises(CellError, match="hold 3 values that are NaN or infinite"):
        held.add(torch.tensor([0.9, 0.1, bad, 0.3, 0.2, bad, 0.1, 0.1, bad]))
    assert torch.equal(held.state, before)


def test_the_largest_floats_are_scores():
    top = np.finfo(np.float32).max
    tiny = np.finfo(np.float32).smallest_normal
    values = torch.tensor([-top, -tiny, 0.0, tiny, top])
    histogram = filled([(values, torch.ones(5, dtype=torch.bool))])
    assert histogram.curve(5).anomalous.tolist() == [1] * 5
