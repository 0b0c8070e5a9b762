"""The tools of the speed benchmarks, by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zsad.benchmarks.speed import measure


def test_ways_take_turns() -> None:
    calls: list[str] = []
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = measure.interleaved(ways, 3)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_ratios_are_taken_within_a_turn() -> None:
    found = measure.ratio([2.0, 40.0, 9.0], [1.0, 10.0, 3.0])  # the second turn was a slow one
    assert found == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert measure.shown(found, 10, 1) == "30.0 (20.0-40.0)"


def test_products_convolutions_and_attentions_are_counted() -> None:
    x, w = torch.ones(2, 3, 5), torch.ones(7, 5)
    assert measure.macs(lambda: F.linear(x, w)) == 2 * 3 * 5 * 7
    image, kernel = torch.ones(1, 2, 6, 6), torch.ones(4, 2, 3, 3)
    assert measure.macs(lambda: F.conv2d(image, kernel)) == 16 * 4 * 2 * 9
    q = torch.ones(1, 2, 8, 4)
    assert measure.macs(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 8 * 8 * 4)


@torch.no_grad()
def test_whole_attention_modules_count_like_their_parts() -> None:
    block = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.ones(3, 9, 16)
    found = measure.macs(lambda: block(x, x, x, need_weights=False))
    assert found == 3 * (4 * 9 * 16 * 16 + 2 * 9 * 9 * 16)


def test_peak_is_a_rate_and_the_clock_of_the_process_runs() -> None:
    assert measure.peak_macs("cpu", torch.float32, 1) > 1e8
    start = measure.now("cpu", "cpu")
    torch.ones(600, 600) @ torch.ones(600, 600)
    assert measure.now("cpu", "cpu") > start


def test_conditions_name_machine_and_options() -> None:
    line = measure.headline(measure.conditions("cpu", batch=4))
    for part in ("batch 4", "device cpu", "threads", f"torch {torch.__version__}"):
        assert part in line


def test_ways_of_unequal_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        measure.ratio([1.0], [1.0, 2.0])
