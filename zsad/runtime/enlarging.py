"""Brings a map to the size of its picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS = 256  # of a map that are enlarged at once


def enlarged(anomaly_map: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] bilinearly at another ``size`` (H, W): pixel centres are sampled, as torch's
    ``interpolate(align_corners=False)`` does.  No value leaves the range of the map."""
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    (top, below, down), (left, right, across) = (
        _between(old, new) for old, new in zip(anomaly_map.shape, size)
    )
    rows = anomaly_map[:, left] * (1 - across) + anomaly_map[:, right] * across  # [h, W]
    out = np.empty(size, dtype=np.float32)
    for start in range(0, size[0], ROWS):  # a large picture in strips, to save memory
        part = slice(start, start + ROWS)
        weight = down[part, None]
        out[part] = rows[top[part]] * (1 - weight) + rows[below[part]] * weight
    # Rounding alone would let a value leave the range.
    return np.clip(out, anomaly_map.min(), anomaly_map.max(), out=out)


def _between(
    old: int, new: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``new`` places along an axis of ``old`` values: the two values that it lies
    between, and the weight of the second."""
    place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(place).astype(np.int64)
    return first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32)
