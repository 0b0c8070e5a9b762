"""Gives the types that the steps of the generator hand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zsad.data.synthetic.fields import F32, Array, Rng, cover, fractal, grid, mix, smooth
from zsad.data.synthetic.palette import pick, tone


@dataclass
class Scene:
    """A clean surface.  ``picture`` [n, n, 3] in 0..1, ``support`` [n, n] in 0..1: where the
    thing itself is, and so where a defect can be; ``colour`` [3]: its typical colour."""

    picture: Array
    support: Array
    colour: Array


@dataclass
class Flaw:
    """A structural defect that a maker builds in.  It draws from its own ``rng``, so that the
    rest of the thing stays the same with and without it."""

    kind: str
    rng: Rng


Maker = Callable[[Rng, int, "Flaw | None"], Scene]


def surface(rng: Rng, n: int, dark: Array, light: Array, t: Array, speck: float = 0.02) -> Array:
    """A picture that runs from ``dark`` to ``light`` by ``t`` [n, n], with fine grain."""
    noise = rng.standard_normal((n, n), dtype=F32) * F32(speck)
    return mix(dark, light, np.clip(t, 0, 1)) + noise[..., None]


def whole(n: int) -> Array:
    return np.ones((n, n), F32)


def background(rng: Rng, n: int) -> Array:
    """What an object lies on: a bench, a belt, paper, now and then with a line or a stain-free
    weave of its own."""
    dark, light = pick(rng, "ground")
    t = 0.5 + 0.22 * smooth(rng, n, 2) + 0.05 * fractal(rng, n, 12, 3)
    style = rng.random()
    x, y = grid(n)
    if style < 0.2:
        a = rng.uniform(0, np.pi)
        f = rng.uniform(20, 45)
        t = t + F32(0.08) * np.sin(F32(f) * (F32(np.cos(a)) * x + F32(np.sin(a)) * y))
    elif style < 0.35:
        a = rng.uniform(0, np.pi)
        d = F32(np.cos(a)) * x + F32(np.sin(a)) * y - F32(rng.uniform(-0.9, 0.9))
        t = t + F32(rng.choice([-0.3, 0.3])) * cover(d, 0.02)
    return surface(rng, n, dark, light, t, rng.uniform(0.006, 0.025))


def drop_shadow(rng: Rng, picture: Array, alpha: Array) -> Array:
    """Darken the ground beside an object, as a lamp from one side does."""
    shift = max(1, round(picture.shape[0] * rng.uniform(0.01, 0.035)))
    dy, dx = int(rng.integers(-1, 2)) * shift, int(rng.integers(-1, 2)) * shift
    moved = np.roll(alpha, (dy, dx), (0, 1))
    moved = (
        moved + np.roll(moved, shift, 0) + np.roll(moved, -shift, 1) + np.roll(moved, shift, 1)
    ) / 4
    return picture * (1 - F32(rng.uniform(0.15, 0.4)) * moved)[..., None]


def marks(rng: Rng) -> Array:
    """A paint for printed marks."""
    return tone(rng, "plastic", "ground")
