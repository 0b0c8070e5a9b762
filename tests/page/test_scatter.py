"""Drawings of points: all of them are there, in their places, and no text breaks out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from zsad.page.scatter import EDGE, FOOT, HEIGHT, WIDTH, Marks, scatter


def circles(svg: str) -> np.ndarray:
    return np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg), float)


def test_distances_are_drawn_to_scale_and_inside() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2)) * (5, 1)
    drawn = circles(scatter("t", [Marks(points, "#123456")], (0.7, 0.2)))
    a, b = (np.linalg.norm(p[1:] - p[:-1], axis=1) for p in (drawn, points))
    np.testing.assert_allclose(a / b, (a / b).mean(), rtol=0.02)  # drawn to a tenth of a pixel
    assert (drawn.min(0) >= EDGE - 0.1).all()
    assert (drawn.max(0) <= np.array([WIDTH - EDGE, HEIGHT - FOOT - EDGE]) + 0.1).all()


def test_a_common_frame_puts_a_point_in_the_same_place() -> None:
    points = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0]])
    alone = circles(scatter("t", [Marks(points[1:2], "#123456")], (1, 0), points))
    whole = circles(scatter("t", [Marks(points, "#123456")], (1, 0)))
    np.testing.assert_array_equal(alone[0], whole[1])


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.ones((1, 2)), np.ones((3, 2))])
def test_points_without_extent_are_drawn_in_the_middle(points: np.ndarray) -> None:
    drawn = circles(scatter("t", [Marks(points, "#123456", labels=["1"] * len(points))], (0, 0)))
    assert len(drawn) == len(points)
    assert all(tuple(at) == (WIDTH / 2, (HEIGHT - FOOT) / 2) for at in drawn)


def test_coinciding_labels_are_one_text_and_foreign_texts_stay_texts() -> None:
    evil = '</title><script>"&'
    marks = Marks(np.ones((3, 2)), "#123456", "cross", [evil] * 3, [evil, "2", "3"])
    root = ElementTree.fromstring(scatter(evil, [marks], (1, 0)))
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"{evil}, 2, 3" in texts
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
