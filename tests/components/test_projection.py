"""The plane of two principal components: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from zsad.components.projection import plane


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_points_of_a_plane_keep_their_distances() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) * (3, 1)
    axes, _ = np.linalg.qr(rng.normal(size=(40, 2)))
    points = flat @ axes.T + rng.normal(size=40)  # somewhere in 40 dimensions
    fitted = plane(points)
    np.testing.assert_allclose(distances(fitted.of(points)), distances(flat), atol=1e-9)
    assert sum(fitted.shares) == pytest.approx(1)
    assert fitted.shares[0] > fitted.shares[1]
    outside = points[:5] + 7 * np.linalg.svd(axes.T)[2][-1]  # off the plane, by a normal of it
    np.testing.assert_allclose(fitted.of(outside), fitted.of(points[:5]), atol=1e-9)


def test_the_same_points_lie_in_the_same_places_whatever_their_order() -> None:
    points = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    order = np.random.default_rng(2).permutation(12)
    np.testing.assert_allclose(plane(points[order]).of(points), plane(points).of(points), atol=1e-6)


@pytest.mark.parametrize(
    ("points", "shares"),
    [
        ([[1.0, 2.0, 3.0]], (0, 0)),
        ([[1.0, 2.0, 3.0]] * 4, (0, 0)),
        ([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [2.0, 4.0, 4.0]], (1, 0)),
    ],
)
def test_fewer_dimensions_leave_an_axis_empty(
    points: list[list[float]], shares: tuple[float, float]
) -> None:
    fitted = plane(points)
    assert fitted.shares == pytest.approx(shares, abs=1e-9)
    np.testing.assert_allclose(distances(fitted.of(points)), distances(np.array(points)), atol=1e-9)
