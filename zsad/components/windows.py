"""Sliding windows on the patch grid: geometry, and what windows say about the patches they cover.

Windows are k x k patches, stride 1, in raster order, as the taps ``window`` and
``window_values`` deliver them: window m of an h x w grid has its top left patch at
(m // (w-k+1), m % (w-k+1)).  Source of the aggregation: WinCLIP (Jeong et al. 2023), Sec. 4.2:
a patch takes the harmonic mean of the scores of all windows over it, and scales are joined by a
harmonic mean once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.backbones.windows import window_indices
from zsad.errors import RequestError
from zsad.on_device import constant

Mean = Literal["harmonic", "mean"]
EPSILON = 1e-6  # smallest score that enters a harmonic mean


def window_grid(grid: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the rows and columns of windows of ``size`` x ``size`` patches.

    Raises :class:`RequestError` if a window does not fit into the grid.
    """
    h, w = grid
    if not 1 <= size <= min(h, w):
        raise RequestError(
            f"window of {size}x{size} patches does not fit the {h}x{w} patch grid of this "
            f"backbone; choose scales between 1 and {min(h, w)}"
        )
    return h - size + 1, w - size + 1


@lru_cache(maxsize=32)
def window_patches(grid: tuple[int, int], size: int) -> Tensor:
    """Return the patch indices of every window: [M, size*size] int64, raster order."""
    window_grid(grid, size)  # a readable error if it does not fit
    return window_indices(grid, size)[:, 1:] - 1


def coverage(grid: tuple[int, int], size: int) -> Tensor:
    """Return which window covers which patch: [L, M] bool."""
    index = window_patches(grid, size)  # [M, k*k]
    covered = torch.zeros(index.shape[0], grid[0] * grid[1], dtype=torch.bool)
    return covered.scatter(1, index, True).T.contiguous()


def window_region(
    index: int, grid: tuple[int, int], size: int
) -> tuple[float, float, float, float]:
    """Return window ``index`` as (left, top, right, bottom), fractions of the image."""
    h, w = grid
    row, col = divmod(index, window_grid(grid, size)[1])
    return col / w, row / h, (col + size) / w, (row + size) / h


def _box_sum(scores: Tensor, size: int) -> Tensor:
    """Sum [B, rows, cols] over the windows that cover each patch: [B, h, w].

    A patch is covered by the up to k x k windows that start at most k-1 patches above and to
    the left of it, so the sum is a box filter over the window grid padded with zeros.
    """
    padded = F.pad(scores.unsqueeze(1), [size - 1] * 4)
    if torch.compiler.is_compiling():  # exchange formats know no divisor of one's own
        ones = torch.ones(1, 1, size, size, dtype=padded.dtype, device=padded.device)
        return F.conv2d(padded, ones).squeeze(1)
    return F.avg_pool2d(padded, size, stride=1, divisor_override=1).squeeze(1)


@lru_cache(maxsize=64)
def _cover_counts(grid: tuple[int, int], size: int) -> Tensor:
    """How many windows cover each patch, [1, h, w]: a constant, never part of a recording."""
    rows, columns = (
        torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1)).clamp(
            max=min(size, n - size + 1)
        )
        for n in grid
    )
    return (rows[:, None] * columns).float()[None]


def spread(
    scores: Tensor,
    grid: tuple[int, int],
    size: int,
    how: Mean = "harmonic",
    eps: float = EPSILON,
) -> Tensor:
    """Give every patch the mean of the windows over it.

    ``scores`` [B, M] in [0, 1] -> [B, h, w].  ``harmonic``: values below ``eps`` count as
    ``eps``, so one window that is sure of its label decides for its patches.
    """
    rows, cols = window_grid(grid, size)
    field = scores.reshape(-1, rows, cols)
    count = constant(_cover_counts, grid, size, device=field.device, dtype=field.dtype)
    if how == "mean":
        return _box_sum(field, size) / count
    return count / _box_sum(field.clamp_min(eps).reciprocal(), size)


def join(maps: Sequence[Tensor], how: Mean = "harmonic", eps: float = EPSILON) -> Tensor:
    """Average maps [B, h, w] of several scales elementwise."""
    stack = torch.stack(list(maps))
    if how == "mean":
        return stack.mean(0)
    return len(maps) / stack.clamp_min(eps).reciprocal().sum(0)
