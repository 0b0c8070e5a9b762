"""Points of many dimensions in the plane in which they vary most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Plane:
    """The plane of the first two principal components of some points.

    ``centre`` [E]: their mean; ``axes`` [2, E]: orthonormal, or zero where the points span less;
    ``shares``: of the points' variance along each axis, 0..1.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: tuple[float, float]

    def of(self, points: ArrayLike) -> NDArray[np.float64]:
        """Where points [N, E] lie in the plane: [N, 2]."""
        found: NDArray[np.float64] = (np.asarray(points, float) - self.centre) @ self.axes.T
        return found


def plane(points: ArrayLike) -> Plane:
    """Fit the plane to points [N, E], N >= 1.

    A function of the points alone: of the two directions of an axis that one is taken in which its
    largest component is positive.  Distances between points that lie in a plane are kept.
    """
    held = np.asarray(points, float)
    centre = held.mean(0)
    _, spread, axes = np.linalg.svd(held - centre, full_matrices=False)
    most = spread[0] if len(spread) else 0.0
    rank = int((spread > most * 1e-9).sum()) if most > 0 else 0
    chosen = np.zeros((2, held.shape[1]))
    chosen[: min(rank, 2)] = axes[: min(rank, 2)]
    signs = np.sign(chosen[np.arange(2), np.abs(chosen).argmax(1)])
    whole = float((spread**2).sum())
    shares = [float(s**2) / whole if whole else 0.0 for s in spread[:2]]
    first, second = (*shares, 0.0, 0.0)[:2]
    return Plane(centre, chosen * signs[:, None], (first, second))
