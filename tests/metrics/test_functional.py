"""Metrics of curves: hand cases, scikit-learn, brute force; the exact form of curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsad.metrics import functional, reference
from zsad.metrics.functional import Curve
from zsad.metrics.regions import region_pixels


def curve_of(maps: np.ndarray, masks: np.ndarray, cuts: np.ndarray | None = None) -> Curve:
    _, weights, regions = region_pixels(masks)
    return Curve.from_scores(maps[~masks], maps[masks], weights, regions, cuts)


def scored(levels: int, size: int = 60):
    """Scores with many ties (few levels) and labels of both classes."""
    return st.lists(
        st.tuples(st.integers(-levels, levels), st.booleans()), min_size=4, max_size=size
    ).filter(lambda items: 0 < sum(label for _, label in items) < len(items))


# ------------------------------------------------------------------------------- hand cases
def test_hand_case_without_ties():
    """Anomalous 4, 2; normal 3, 1."""
    curve = Curve.from_scores(np.array([3.0, 1.0]), np.array([4.0, 2.0]))
    assert functional.auroc(curve) == pytest.approx(3 / 4)
    assert functional.average_precision(curve) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert functional.f1_max(curve) == pytest.approx(4 / 5)  # both found, one false alarm


def test_hand_case_all_tied():
    """Every score equal: AUROC 1/2, AP = prevalence, one threshold."""
    curve = Curve.from_scores(np.full(3, 7.0), np.full(1, 7.0))
    assert functional.auroc(curve) == 0.5
    assert functional.average_precision(curve) == 0.25
    assert functional.f1_max(curve) == pytest.approx(2 / 5)


def test_perfect_and_worst_order():
    low, high = np.arange(5.0), np.arange(5.0) + 10
    assert functional.auroc(Curve.from_scores(low, high)) == 1
    assert functional.auroc(Curve.from_scores(high, low)) == 0
    assert functional.average_precision(Curve.from_scores(low, high)) == 1


def test_aupro_by_hand():
    """A 1-pixel and a 4-pixel region, 10 normal pixels; the small region is found last.

    FPR 0 -> overlap (0 + 1) / 2; then one false alarm per 0.1 until 0.2, where the small one is
    found: overlap 1/2 up to 0.2, then 1.  Area to 0.3: 0.2 * 0.5 + 0.1 * 1.
    """
    maps = np.zeros((1, 3, 5), np.float32)
    masks = np.zeros((1, 3, 5), bool)
    masks[0, :2, :2] = True
    masks[0, 2, 4] = True
    maps[masks] = 9
    maps[0, 2, 4] = 5
    maps[~masks] = [8, 7, 4, 3, 2, 1, 0.5, 0.4, 0.3, 0.2]
    assert functional.aupro(curve_of(maps, masks), 0.3) == pytest.approx(0.2 / 0.3)
    assert functional.aupro(curve_of(maps, masks), 0.2) == pytest.approx(0.5)
    assert functional.aupro(curve_of(maps, masks), 1.0) == pytest.approx(0.9)


def test_aupro_interpolates_at_the_limit():
    """One threshold finds half of the region and half of the normal pixels: a straight line."""
    maps = np.array([[[1.0, 0.0, 1.0, 0.0]]])
    masks = np.array([[[True, True, False, False]]])
    assert functional.aupro(curve_of(maps, masks), 0.3) == pytest.approx(0.15)
    constant = curve_of(np.zeros((1, 1, 4)), masks)
    assert functional.aupro(constant, 0.3) == pytest.approx(0.15)
    assert functional.aupro(constant, 1.0) == pytest.approx(0.5)


def test_aupro_weighs_regions_not_pixels():
    """A found region of one pixel counts as much as a missed one of a hundred."""
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 0, 0] = True
    masks[1, :10, :10] = True
    maps = np.where(masks, 0.0, 0.5)
    maps[0, 0, 0] = 1
    assert functional.aupro(curve_of(maps, masks)) == pytest.approx(0.5)


def test_aupro_200_is_undefined_for_constant_maps():
    masks = np.array([[[True, False]]])
    flat = np.full((1, 1, 2), 0.3, np.float32)
    assert functional.aupro_200(curve_of(flat, masks), flat.min(), flat.max()) is None


# ------------------------------------------------------------- independent implementations
@settings(max_examples=150, deadline=None)
@given(scored(levels=6) | scored(levels=10**6))
def test_curves_agree_with_scikit_learn(items):
    scores = np.array([s for s, _ in items]) / 7
    labels = np.array([label for _, label in items])
    curve = Curve.from_scores(scores[~labels], scores[labels])
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    assert functional.auroc(curve) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    ours = functional.average_precision(curve)
    assert ours == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert functional.f1_max(curve) == pytest.approx(np.nanmax(f1), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(scored(levels=4, size=25))
def test_references_agree_with_scikit_learn(items):
    """The slow versions are themselves checked."""
    scores = np.array([s for s, _ in items], float)
    labels = np.array([label for _, label in items]).astype(int)
    assert reference.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    expected = average_precision_score(labels, scores)
    assert reference.average_precision(scores, labels) == pytest.approx(expected)
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        assert reference.f1_max(scores, labels) == pytest.approx(
            np.nanmax(2 * precision * recall / (precision + recall))
        )


@st.composite
def segmentations(draw):
    """Small stacks of maps and masks: random blocks, tiny regions, touching corners, ties."""
    seed, shape = draw(st.integers(0, 2**31)), draw(st.tuples(*[st.integers(2, 9)] * 3))
    random = np.random.default_rng(seed)
    masks = random.random(shape) < draw(st.sampled_from([0.05, 0.3, 0.6]))
    masks.flat[0], masks.flat[-1] = True, False
    top = draw(st.sampled_from([2, 8, 10**6]))
    maps = (random.integers(0, top, shape) + masks * random.integers(0, top, shape)) / top
    return maps.astype(np.float32), masks


@settings(max_examples=120, deadline=None)
@given(segmentations(), st.sampled_from([0.05, 0.3, 0.999, 1.0]))
def test_aupro_equals_brute_force(stack, limit):
    maps, masks = stack
    ours = functional.aupro(curve_of(maps, masks), limit)
    assert ours == pytest.approx(reference.aupro(maps, masks, limit), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(segmentations())
def test_aupro_200_equals_the_threshold_loop(stack):
    maps, masks = stack
    low, high = maps.min(), maps.max()
    cuts = functional.released_steps(low, high)
    ours = functional.aupro_200(curve_of(maps, masks, cuts), low, high)
    if ours is not None:  # the loop divides by zero where ours says undefined
        assert ours == pytest.approx(reference.aupro_200(maps, masks), abs=1e-12)
    else:
        with np.errstate(all="ignore"):
            rates = [(maps > t)[~masks].mean() for t in cuts]
            assert len({r for r in rates if r < 0.3}) < 2


@settings(max_examples=60, deadline=None)
@given(segmentations())
def test_grouping_normal_pixels_changes_nothing(stack):
    """Cutting every group to single values gives the same metrics."""
    maps, masks = stack
    joined, cut = curve_of(maps, masks), curve_of(maps, masks, np.unique(maps))
    assert len(joined.normal) <= len(cut.normal)
    for metric in (functional.auroc, functional.average_precision, functional.f1_max):
        assert metric(joined) == pytest.approx(metric(cut), abs=1e-12)
    assert functional.aupro(joined) == pytest.approx(functional.aupro(cut), abs=1e-12)
    assert (np.diff(cut.thresholds) < 0).all()
    assert (np.diff(joined.thresholds) < 0).all()


# ---------------------------------------------------------------------- every group looked at
def of_all_groups(curve: Curve, limit: float) -> dict[str, float]:
    """Values and bounds by their formulas over all groups, with nothing left out or kept."""
    found = np.concatenate([[0.0], np.cumsum(curve.anomalous, dtype=np.float64)])
    alarms = np.concatenate([[0.0], np.cumsum(curve.normal, dtype=np.float64)])
    cover = np.concatenate([[0.0], np.cumsum(curve.overlap)]) / curve.regions
    rate, mixed, total = alarms / alarms[-1], curve.mixed, found[-1]
    f1 = float((2 * found[1:] / (total + found[1:] + alarms[1:])).max())
    iou = float((found[1:] / (total + alarms[1:])).max())
    best_f1 = (2 * found[1:] / (total + found[1:] + alarms[:-1]))[mixed]
    best_iou = (found[1:] / (total + alarms[:-1]))[mixed]
    shared = np.dot(curve.normal[mixed].astype(float), curve.anomalous[mixed].astype(float))
    rise, start, end = np.diff(cover)[mixed], rate[:-1][mixed], rate[1:][mixed]
    whole = end <= limit
    cut = (start < limit) & ~whole
    area = (rise * (end - start) / 2)[whole].sum() + (rise * (limit - start))[cut].sum()
    return {
        "f1_max": f1,
        "iou_max": iou,
        "f1_max_bound": max(0.0, float(best_f1.max(initial=0)) - f1),
        "iou_max_bound": max(0.0, float(best_iou.max(initial=0)) - iou),
        "auroc_bound": float(shared / 2 / (alarms[-1] * total)),
        "aupro_bound": float(area / limit),
        "auroc": float(
            np.dot(curve.normal.astype(float), (found[:-1] + found[1:]) / 2) / (alarms[-1] * total)
        ),
        "average_precision": float(
            np.dot(curve.anomalous.astype(float), found[1:] / (found[1:] + alarms[1:])) / total
        ),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 200), st.sampled_from([0.05, 0.3, 1.0]))
def test_what_is_left_out_or_kept_changes_no_bit(seed: int, groups: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    normal, anomalous = random.integers(0, 6, (2, groups)) * random.integers(0, 2, (2, groups))
    normal[random.integers(groups)] += 1
    anomalous[random.integers(groups)] += 1
    held = normal + anomalous > 0
    normal, anomalous = normal[held], anomalous[held]
    curve = Curve(
        np.arange(len(normal))[::-1].astype(np.float32),
        normal,
        anomalous,
        anomalous * random.random(len(normal)),
        3,
        (normal + anomalous > 1) & (random.random(len(normal)) < 0.7),
    )
    for name, wanted in of_all_groups(curve, limit).items():
        arguments = (limit,) if name == "aupro_bound" else ()
        for _ in range(2):
            assert getattr(functional, name)(curve, *arguments) == wanted, name


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_normal_scores_may_come_in_order(kind: type) -> None:
    random = np.random.default_rng(0)
    normal, anomalous = (np.round(random.normal(size=n), 1).astype(kind) for n in (300, 40))
    weights = random.random(40)
    for own in (normal, normal[:0], normal[:1]):
        before = own.copy()
        one = Curve.from_scores(own, anomalous, weights, 2)
        other = Curve.from_scores(np.sort(own), anomalous, weights, 2, ordered=True)
        np.testing.assert_array_equal(own, before)
        for name in ("thresholds", "normal", "anomalous", "overlap"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.thresholds.dtype == kind
        assert one.n_normal == len(own)
        for count, threshold in zip(one.alarms[1:], one.thresholds, strict=True):
            assert count == (own >= threshold).sum()
