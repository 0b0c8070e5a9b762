"""Window geometry and harmonic aggregation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsad.components.windows import (
    coverage,
    join,
    spread,
    window_grid,
    window_patches,
    window_region,
)
from zsad.errors import RequestError

grids = st.tuples(st.integers(2, 7), st.integers(2, 7))


def test_windows_of_a_3x3_grid_by_hand() -> None:
    assert window_patches((3, 3), 2).tolist() == [
        [0, 1, 3, 4],
        [1, 2, 4, 5],
        [3, 4, 6, 7],
        [4, 5, 7, 8],
    ]
    assert window_grid((3, 3), 2) == (2, 2)
    assert window_region(3, (3, 3), 2) == (1 / 3, 1 / 3, 1.0, 1.0)


def test_windows_of_a_wide_grid_by_hand() -> None:
    assert window_patches((2, 4), 2).tolist() == [[0, 1, 4, 5], [1, 2, 5, 6], [2, 3, 6, 7]]


def test_harmonic_map_of_a_3x3_grid_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.5, 0.25, 0.2]])
    # The reciprocals are 1, 2, 4, 5; a corner sees one window, an edge two, the centre four.
    by_hand = torch.tensor([[[1, 2 / 3, 1 / 2], [2 / 5, 4 / 12, 2 / 7], [1 / 4, 2 / 9, 1 / 5]]])
    torch.testing.assert_close(spread(scores, (3, 3), 2), by_hand)


def test_arithmetic_map_of_a_3x3_grid_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.5, 0.25, 0.2]])
    by_hand = torch.tensor([[[1, 0.75, 0.5], [0.625, 0.4875, 0.35], [0.25, 0.225, 0.2]]])
    torch.testing.assert_close(spread(scores, (3, 3), 2, "mean"), by_hand)


@given(grid=grids, size=st.integers(1, 4), value=st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_a_constant_stays_constant(grid: tuple[int, int], size: int, value: float) -> None:
    size = min(size, *grid)
    rows, cols = window_grid(grid, size)
    out = spread(torch.full((2, rows * cols), value), grid, size)
    torch.testing.assert_close(out, torch.full((2, *grid), value))


@given(grid=grids, size=st.integers(1, 4), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("how", ["harmonic", "mean"])
def test_equals_a_loop_over_patches(grid: tuple[int, int], size: int, seed: int, how: str) -> None:
    size = min(size, *grid)
    covered = coverage(grid, size)  # [L, M]
    scores = torch.rand(3, covered.shape[1], generator=torch.Generator().manual_seed(seed)) + 1e-3
    loop = torch.stack(
        [
            1 / (1 / scores[:, row]).mean(1) if how == "harmonic" else scores[:, row].mean(1)
            for row in covered
        ],
        dim=1,
    )
    torch.testing.assert_close(spread(scores, grid, size, how).flatten(1), loop)  # type: ignore[arg-type]


@pytest.mark.parametrize("planted", [0, 7, 12])
def test_one_zero_window_pulls_down_exactly_its_patches(planted: int) -> None:
    grid, size = (5, 6), 2
    scores = torch.ones(1, 4 * 5)
    scores[0, planted] = 0.0
    low = spread(scores, grid, size).flatten() < 0.5
    assert torch.equal(low, coverage(grid, size)[:, planted])


def test_coverage_agrees_with_window_patches() -> None:
    covered = coverage((4, 5), 3)
    for window, patches in enumerate(window_patches((4, 5), 3)):
        assert covered[:, window].nonzero().flatten().tolist() == patches.tolist()


def test_join_by_hand() -> None:
    maps = [torch.full((1, 2, 2), v) for v in (1.0, 0.5, 0.25)]
    torch.testing.assert_close(join(maps), torch.full((1, 2, 2), 3 / 7))
    torch.testing.assert_close(join(maps, "mean"), torch.full((1, 2, 2), 1.75 / 3))


def test_scores_near_zero_do_not_divide_by_zero() -> None:
    out = spread(torch.zeros(1, 4), (3, 3), 2)
    torch.testing.assert_close(out, torch.full((1, 3, 3), 1e-6))


def test_a_window_larger_than_the_grid_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="window of 4x4 patches does not fit the 3x5 patch grid"):
        window_patches((3, 5), 4)
