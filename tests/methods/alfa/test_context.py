"""Contextual scoring: interval layouts worked by hand, and its equality with a loop."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsad import registry
from zsad.methods.alfa.config import Context
from zsad.methods.alfa.context import Kept, adapt

DEFAULT: Context = registry.method("alfa").resolve().context


def run(
    normal: list[float],
    abnormal: list[float],
    config: Context = DEFAULT,
    template: list[bool] | None = None,
) -> Kept:
    """Adapt one image whose cosines are given by label."""
    d = torch.tensor([normal + abnormal], dtype=torch.float32)
    labels = torch.tensor([0] * len(normal) + [1] * len(abnormal))
    from_template = torch.tensor(template or [True] * d.shape[1])
    return adapt(d, labels, from_template, config)


def kept(*args: object, **kwargs: object) -> list[int]:
    return (run(*args, **kwargs).weight[0] > 0).int().tolist()  # type: ignore[arg-type]


# ------------------------------------------------------------------------ layouts by hand
def test_disjoint_intervals_keep_everything() -> None:
    assert kept([0.1, 0.2, 0.3], [0.4, 0.5]) == [1, 1, 1, 1, 1]


def test_overlapping_intervals_keep_the_tails() -> None:
    # normal [0.1, 0.4], abnormal [0.3, 0.6]: 0.4 and 0.3, 0.35 lie in both.
    assert kept([0.1, 0.25, 0.4], [0.3, 0.35, 0.5, 0.6]) == [1, 1, 0, 0, 0, 1, 1]


def test_nested_intervals_empty_the_inner_label_which_then_keeps_all() -> None:
    result = run([0.3, 0.4], [0.1, 0.35, 0.6])
    assert result.emptied.tolist() == [[True, False]]
    assert (result.weight[0] > 0).int().tolist() == [1, 1, 1, 0, 1]


def test_a_tie_at_the_other_intervals_end_is_inside() -> None:
    assert kept([0.1, 0.2, 0.3], [0.3, 0.4]) == [1, 1, 0, 0, 1]


def test_identical_intervals_keep_everything() -> None:
    result = run([0.1, 0.2, 0.3], [0.1, 0.15, 0.3])
    assert result.emptied.tolist() == [[True, True]]
    assert result.weight.tolist() == [[1.0] * 6]


def test_off_keeps_everything() -> None:
    assert kept([0.3, 0.4], [0.1, 0.35, 0.6], replace(DEFAULT, enabled=False)) == [1] * 5


# --------------------------------------------------------------------------- empty sides
NESTED = ([0.3, 0.4, 0.5], [0.1, 0.35, 0.45, 0.9])


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("keep_side", [1, 1, 1, 1, 0, 0, 1]),
        ("disable", [1, 1, 1, 1, 1, 1, 1]),
        ("template_only", [0, 1, 0, 1, 0, 0, 1]),
        ("top_m", [1, 1, 0, 1, 0, 0, 1]),  # 0.3 and 0.4 are nearest to leaving [0.1, 0.9]
    ],
)
def test_every_way_to_fill_an_emptied_label(option: str, expected: list[int]) -> None:
    config = replace(DEFAULT, on_empty=option, top_m=2)
    template = [False, True, False, True, False, False, False]
    assert kept(*NESTED, config, template) == expected


def test_nothing_but_the_emptied_label_is_filled() -> None:
    for option in ("keep_side", "disable", "template_only", "top_m"):
        config = replace(DEFAULT, on_empty=option)
        assert kept([0.1, 0.25, 0.4], [0.3, 0.5], config) == [1, 1, 0, 0, 1]


# ------------------------------------------------------------------------------- readings
def test_the_literal_equation_filters_nothing() -> None:
    config = replace(DEFAULT, reading="literal")
    result = run(*NESTED, config)
    assert result.weight.tolist() == [[1.0] * 7]
    assert result.score.min() >= 0.5  # Eq. 4 as printed never reaches 0
    assert result.score.max() < 1


def test_the_signed_difference_rejects_one_whole_label() -> None:
    config = replace(DEFAULT, reading="signed")
    result = run([0.1, 0.2], [0.4, 0.5], config)
    assert result.emptied.tolist() == [[True, False]]


def test_contextual_score_by_hand() -> None:
    result = run([0.1, 0.3], [0.2, 0.5])
    deviation = math.sqrt((0.1**2 + 0.15**2) / 2)  # pooled over the labels
    expected = [math.tanh(0.1 / (2 * deviation)), 0, 0, math.tanh(0.2 / (2 * deviation))]
    torch.testing.assert_close(result.score[0], torch.tensor(expected))
    weighted = run([0.1, 0.3], [0.2, 0.5], replace(DEFAULT, weighting="tanh"))
    torch.testing.assert_close(weighted.weight, weighted.score)


def test_quantile_intervals_by_hand() -> None:
    config = replace(DEFAULT, interval="quantile", quantile=0.25)
    # Quartiles: normal [0.2, 0.4], abnormal [0.35, 0.65].  0.1 leaves its own interval too, but
    # lies at different distances (0.1 and 0.25) from the two; 0.35 .. 0.4 lies in both.
    result = run([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.35, 0.38, 0.65, 0.8], config)
    assert (result.weight[0] > 0).int().tolist() == [1, 1, 1, 0, 1, 1, 0, 0, 1, 1]


# ------------------------------------------------------------------------------ properties
def slow(d: list[float], labels: list[int], slope: float) -> list[float]:
    """Eq. 4, prompt by prompt, in the reading 2 S_c - 1 with distances in pooled deviations."""
    sides = [[x for x, c in zip(d, labels) if c == label] for label in (0, 1)]
    variance = 0.0
    for side in sides:
        mean = sum(side) / len(side)
        variance += sum((x - mean) ** 2 for x in side)
    deviation = math.sqrt(variance / len(d))
    scores = []
    for x in d:
        distance = [max(0.0, min(side) - x, x - max(side)) for side in sides]
        norm = abs(distance[0] - distance[1])
        scores.append(2 / (1 + math.exp(-slope * norm / deviation)) - 1)
    return scores


@given(seed=st.integers(0, 10_000), n=st.integers(2, 9), m=st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_vectorised_equals_a_loop_over_prompts(seed: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    d = torch.rand(4, n + m, generator=generator, dtype=torch.float64)
    labels = [0] * n + [1] * m
    result = adapt(d, torch.tensor(labels), torch.ones(n + m, dtype=torch.bool), DEFAULT)
    for row, cosines in enumerate(d.tolist()):
        scores = slow(cosines, labels, DEFAULT.slope)
        keep = [s > 0 for s in scores]
        for label in (0, 1):
            own = [k for k, c in zip(keep, labels) if c == label]
            assert result.emptied[row, label].item() == (not any(own))
            if not any(own):
                keep = [True if c == label else k for k, c in zip(keep, labels)]
        assert (result.weight[row] > 0).tolist() == keep
        torch.testing.assert_close(result.score[row], torch.tensor(scores, dtype=torch.float64))


@given(
    seed=st.integers(0, 10_000),
    slope=st.floats(0.1, 50),
    shift=st.floats(-0.5, 0.5),
    scale=st.floats(0.1, 3),
)
@settings(max_examples=40, deadline=None)
def test_slope_shift_and_scale_change_no_set(
    seed: int, slope: float, shift: float, scale: float
) -> None:
    d = torch.rand(3, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.arange(12) % 2
    template = torch.ones(12, dtype=torch.bool)
    base = adapt(d, labels, template, DEFAULT)
    other = adapt(shift + scale * d, labels, template, replace(DEFAULT, slope=slope))
    assert torch.equal(base.weight > 0, other.weight > 0)


def test_batch_equals_single_images() -> None:
    d = torch.rand(6, 20, generator=torch.Generator().manual_seed(1))
    labels, template = torch.arange(20) % 2, torch.arange(20) < 9
    for option in ("keep_side", "disable", "template_only", "top_m"):
        config = replace(DEFAULT, on_empty=option, weighting="tanh")
        batch = adapt(d, labels, template, config)
        single = torch.cat([adapt(row[None], labels, template, config).weight for row in d])
        assert torch.equal(batch.weight, single)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_nested_share_of_exchangeable_scores(n: int) -> None:
    """Equal sides of exchangeable scores nest with probability (n-1)/(2n-1)."""
    trials = 20_000
    d = torch.rand(trials, 2 * n, generator=torch.Generator().manual_seed(n))
    labels = torch.arange(2 * n) // n
    emptied = adapt(d, labels, torch.ones(2 * n, dtype=torch.bool), DEFAULT).emptied
    share = emptied.any(1).double().mean().item()
    expected = (n - 1) / (2 * n - 1)
    assert abs(share - expected) < 3 * math.sqrt(expected * (1 - expected) / trials)
