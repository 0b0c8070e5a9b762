"""Intervals and tests: hand cases, coverage, size and power, invariance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad.errors import RequestError
from zsad.metrics import statistics

METRICS = {"image_auroc": roc_auc_score, "image_ap": average_precision_score}


def sample(seed: int, count: int = 60, shift: float = 1.0, levels: int = 0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    scores = random.normal(size=count) + shift * labels
    return (np.round(scores * levels) / levels if levels else scores), labels


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([0, 1, 3]))
def test_rows_of_metrics_equal_scikit_learn(metric, seed, levels):
    rows = [sample(seed + i, levels=levels) for i in range(3)]
    labels = rows[0][1]
    ours = statistics._of_scores(np.stack([r[0] for r in rows]), labels, metric)
    assert ours == pytest.approx([METRICS[metric](labels, r[0]) for r in rows], abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_bootstrap_equals_resampling_by_hand(metric):
    """The interval's ends lie near those of a plain loop over resampled images."""
    scores, labels = sample(1, levels=4)
    ours = statistics.bootstrap_ci(scores, labels, metric, resamples=4000)
    random = np.random.default_rng(5)
    values = []
    for _ in range(800):
        chosen = np.concatenate(
            [random.choice(np.flatnonzero(labels == k), (labels == k).sum()) for k in (0, 1)]
        )
        values.append(METRICS[metric](labels[chosen], scores[chosen]))
    assert ours.value == pytest.approx(METRICS[metric](labels, scores))
    assert [ours.low, ours.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.015)


def test_bootstrap_covers_the_truth():
    """Of 200 samples, about 95 % of intervals hold the true AUROC (Phi(1/sqrt 2) = 0.7602)."""
    inside = 0
    for seed in range(200):
        interval = statistics.bootstrap_ci(*sample(seed, 120), resamples=400)
        inside += interval.low <= 0.7602 <= interval.high
    assert 178 <= inside <= 199


def test_bootstrap_is_seeded_and_chunking_changes_nothing(monkeypatch):
    scores, labels = sample(3)
    first = statistics.bootstrap_ci(scores, labels, resamples=300)
    assert statistics.bootstrap_ci(scores, labels, resamples=300) == first
    assert statistics.bootstrap_ci(scores, labels, resamples=300, seed=1) != first
    narrow = statistics.bootstrap_ci(scores, labels, resamples=300, level=0.5)
    assert first.low < narrow.low < narrow.high < first.high
    monotone = statistics.bootstrap_ci(np.exp(scores), labels, resamples=300)
    assert monotone == first


def test_a_perfect_score_has_a_point_interval():
    interval = statistics.bootstrap_ci([1, 2, 3, 10, 11], [0, 0, 0, 1, 1])
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def test_permutation_has_its_size_and_its_power():
    """Equal methods: p below 0.05 in about 5 % of 200 samples.  A better one: nearly always."""
    false, right = 0, 0
    for seed in range(200):
        random = np.random.default_rng(1000 + seed)
        base, labels = sample(seed, 80)
        one, two = base + random.normal(size=80), base + random.normal(size=80)
        false += statistics.paired_permutation(one, two, labels, permutations=199).p_value <= 0.05
        if seed < 20:
            strong = statistics.paired_permutation(base + 2 * labels, one, labels, permutations=199)
            right += strong.p_value <= 0.05 and strong.difference > 0
    assert 2 <= false <= 22
    assert right >= 18


def test_permutation_looks_at_ranks_only():
    one, labels = sample(1)
    two, _ = sample(2)
    plain = statistics.paired_permutation(one, two, labels, permutations=200)
    assert (
        statistics.paired_permutation(np.exp(one), 1000 * two - 7, labels, permutations=200)
        == plain
    )
    back = statistics.paired_permutation(two, one, labels, permutations=200)
    assert back.difference == -plain.difference
    difference = roc_auc_score(labels, one) - roc_auc_score(labels, two)
    assert plain.difference == pytest.approx(difference)


def test_equal_methods_have_p_one():
    scores, labels = sample(1)
    assert statistics.paired_permutation(scores, 2 * scores, labels).p_value == 1


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []
    with pytest.raises(RequestError, match=r"\[0, 1\]"):
        statistics.holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p):
    adjusted = np.array(statistics.holm(p))
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_wrong_requests():
    with pytest.raises(RequestError, match="all 3 are of one kind"):
        statistics.bootstrap_ci([1, 2, 3], [1, 1, 1])
    with pytest.raises(RequestError, match=r"must be \[N\]"):
        statistics.bootstrap_ci([1, 2, 3], [1, 0])
    with pytest.raises(RequestError, match="did you mean 'image_auroc'"):
        statistics.bootstrap_ci([1, 2], [1, 0], "image_auc")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="NaN"):
        statistics.paired_permutation([1, float("nan")], [1, 2], [0, 1])
