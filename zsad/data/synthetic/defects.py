"""Applies the named defects: each returns the changed picture and how far each pixel is changed.

Two disjoint groups.  Held out: crack, hole, stain, dent, thread (and the structural ``missing
part`` and ``bent`` of the makers).  To train on: scratch, contamination, discoloration, broken
edge, scorch, fold, bubble, abrasion (and the structural ``misplaced``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zsad.data.synthetic.fields import (
    F32,
    Array,
    Rng,
    blur,
    cover,
    fractal,
    grid,
    mix,
    relief,
    smooth,
    smoothstep,
    stroke,
)
from zsad.data.synthetic.palette import tone

Change = tuple[Array, Array]
Defect = Callable[[Rng, Array, Array], Change]


def spot(rng: Rng, support: Array, inner: float = 0.5) -> tuple[float, float]:
    """A place (x, y) in -1..1 on the thing, away from the picture's border."""
    ys, xs = np.nonzero(support[::4, ::4] > inner)
    side = (support.shape[0] + 3) // 4
    x, y = (xs + 0.5) / side * 2 - 1, (ys + 0.5) / side * 2 - 1
    good = np.flatnonzero((np.abs(x) < 0.82) & (np.abs(y) < 0.82))
    if len(good) == 0:
        return 0.0, 0.0
    k = int(good[int(rng.integers(len(good)))])
    return float(x[k]), float(y[k])


def size_of(rng: Rng, low: float = 0.08, high: float = 0.26) -> float:
    """A radius in picture halves, log-uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def radial(
    rng: Rng, n: int, at: tuple[float, float], radius: float, rough: float, stretch: float = 1.5
) -> Array:
    """About 0 at the centre and 1 at an irregular outline."""
    x, y = grid(n)
    a, s = rng.uniform(0, np.pi), np.sqrt(rng.uniform(1, stretch))
    c, d = F32(np.cos(a) / radius), F32(np.sin(a) / radius)
    dx, dy = x - F32(at[0]), y - F32(at[1])
    u, v = (c * dx + d * dy) * F32(s), (c * dy - d * dx) / F32(s)
    bumps = int(np.clip(2.5 / radius, 3, 24))
    distance: Array = np.hypot(u, v) + F32(rough) * smooth(rng, n, bumps)
    return distance


def walk(
    rng: Rng,
    n: int,
    at: tuple[float, float],
    length: float,
    wiggle: float,
    jag: float,
    steps: int = 24,
) -> Array:
    """A path [p, 2] in pixels centred at ``at``: slow turning (``wiggle``) and jitter (``jag``)."""
    turn = np.cumsum(rng.normal(0, wiggle / np.sqrt(steps), steps)) + rng.normal(0, jag, steps)
    a = rng.uniform(0, 2 * np.pi) + turn
    path = np.cumsum(np.stack([np.cos(a), np.sin(a)], 1), 0) * (length / steps)
    path = path - path.mean(0) + np.asarray(at)
    pixels: Array = (path + 1) / 2 * n
    return pixels.astype(F32)


def _px(n: int, at_224: float) -> float:
    return at_224 * n / 224


def _shade_towards(picture: Array, factor: float) -> Array:
    """Darker (factor < 1) or lighter (> 1) version of a picture."""
    if factor < 1:
        return picture * F32(factor)
    return 1 - (1 - picture) * F32(2 - factor)


# ----------------------------------------------------------------------------- held out
def crack(rng: Rng, picture: Array, support: Array) -> Change:
    """A jagged dark line with branches and a bright lip."""
    n = picture.shape[0]
    path = walk(rng, n, spot(rng, support), rng.uniform(0.45, 1.1), 0.7, 0.45)
    width = _px(n, rng.uniform(1.2, 3.2))
    taper = np.linspace(1, 0.4, len(path)) * width
    line = stroke(n, path, np.maximum(taper, _px(n, 0.9)))
    for _ in range(int(rng.integers(0, 4))):
        k = int(rng.integers(4, len(path) - 4))
        branch = walk(rng, n, (0, 0), rng.uniform(0.12, 0.4), 0.5, 0.45, 10)
        line = np.maximum(line, stroke(n, branch - branch[0] + path[k], width * 0.55))
    line = line * support
    lip = np.roll(line, (1, 1), (0, 1)) * (1 - line) * support
    lit = mix(picture, _shade_towards(picture, 1.35), lip * F32(rng.uniform(0, 0.7)))
    return mix(lit, picture * F32(rng.uniform(0.1, 0.5)), line), np.maximum(line, lip * F32(0.5))


def hole(rng: Rng, picture: Array, support: Array) -> Change:
    """A hole or pit with a dark inside and a lit edge."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.06, 0.17), rng.uniform(0.02, 0.12))
    soft = 0.12
    inside = cover(r - 1, soft) * support
    rim = np.exp(-(((r - F32(1.08)) / F32(0.12)) ** 2)) * support
    angle = rng.uniform(0, 2 * np.pi)
    lit: Array = picture * relief(inside, angle, rng.uniform(0.3, 0.9))[..., None]
    lit = mix(picture, lit, np.clip(rim * 1.5, 0, 1))
    depth = tone(rng, "ground") * F32(0.25) if rng.random() < 0.8 else tone(rng, "ground")
    bottom = mix(depth, depth * F32(1.5) + F32(0.03), smoothstep(r, 0.3, 1.0))
    return mix(lit, bottom, inside), np.maximum(inside, rim * F32(0.6))


def stain(rng: Rng, picture: Array, support: Array) -> Change:
    """A dried liquid: a translucent tint with a darker outline."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.12, 0.34), rng.uniform(0.1, 0.25))
    inside = cover(r - 1, rng.uniform(0.15, 0.5)) * support
    outline = np.exp(-(((r - F32(0.95)) / F32(0.1)) ** 2)) * inside
    colour = np.array(
        [
            (0.42, 0.30, 0.18),
            (0.25, 0.22, 0.2),
            (0.5, 0.42, 0.2),
            (0.35, 0.16, 0.12),
            (0.2, 0.24, 0.32),
        ][int(rng.integers(5))],
        F32,
    )
    strength = rng.uniform(0.35, 0.8)
    tinted = picture * (colour * F32(1.5)) + colour * F32(0.12)
    alpha = np.clip(
        inside * F32(strength) * (1 + F32(0.15) * smooth(rng, n, 10)) + F32(0.3) * outline, 0, 1
    )
    return mix(picture, np.clip(tinted, 0, 1), alpha), np.clip(inside * 1.1, 0, 1)


def dent(rng: Rng, picture: Array, support: Array) -> Change:
    """A hollow pressed into the surface: it bends the light, and the pattern a little."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.12, 0.3), 0.06, 2.2)
    depth = smoothstep(1 - r, 0, 0.9)
    angle = rng.uniform(0, 2 * np.pi)
    gy, gx = (np.asarray(g, F32) for g in np.gradient(depth))
    steep = max(float(np.abs(gx).max()), 1e-3)
    slope = (F32(np.cos(angle)) * gx + F32(np.sin(angle)) * gy) / F32(steep)
    shade: Array = np.clip(1 + F32(rng.uniform(0.3, 0.6)) * slope, 0.4, 1.6)
    inside = cover(r - 1, 0.15) * support
    return mix(picture, picture * shade[..., None], inside), inside


def thread(rng: Rng, picture: Array, support: Array) -> Change:
    """A stray thread or hair lying on the surface, with its shadow."""
    n = picture.shape[0]
    path = walk(rng, n, spot(rng, support), rng.uniform(0.6, 1.4), rng.uniform(1.5, 4), 0.03, 40)
    width = _px(n, rng.uniform(1.3, 3.0))
    line = stroke(n, path, width)
    shadow = stroke(n, path + F32(_px(n, rng.uniform(1.2, 2.5))), width)
    colour = tone(rng, "cloth", "ground", "plastic")
    shaded = mix(picture, picture * F32(0.6), shadow * F32(0.6))
    return mix(shaded, colour, line), np.maximum(line, shadow * F32(0.6))


# ----------------------------------------------------------------------------- to train on
def scratch(rng: Rng, picture: Array, support: Array) -> Change:
    """One to four straight or slightly bent grooves, bright or dark."""
    n = picture.shape[0]
    at = np.asarray(spot(rng, support))
    line: Array = np.zeros((n, n), F32)
    path = walk(rng, n, (0, 0), rng.uniform(0.3, 1.2), rng.uniform(0.02, 0.6), 0.02, 12) - F32(
        n / 2
    )
    for _ in range(int(rng.integers(1, 5))):
        offset = (at + rng.normal(0, 0.04, 2) + 1) / 2 * n
        line = np.maximum(
            line,
            stroke(n, (path + offset).astype(F32), _px(n, rng.uniform(0.8, 3)))
            * F32(rng.uniform(0.6, 1)),
        )
    line = line * support
    return mix(
        picture, _shade_towards(picture, float(rng.choice([0.4, 0.6, 1.45, 1.7]))), line
    ), line


def contamination(rng: Rng, picture: Array, support: Array) -> Change:
    """Particles or a lump of foreign matter."""
    n = picture.shape[0]
    at = spot(rng, support)
    if rng.random() < 0.5:
        r = radial(rng, n, at, size_of(rng, 0.06, 0.2), rng.uniform(0.1, 0.35))
        alpha = cover(r - 1, rng.uniform(0.08, 0.3))
    else:
        near = cover(radial(rng, n, at, size_of(rng, 0.15, 0.4), 0.1) - 1, 0.5)
        alpha = (
            smoothstep(smooth(rng, n, int(rng.integers(20, 50))) + near * 1.6 - 2.1, 0, 0.5) * near
        )
    alpha = alpha * support
    stuff = tone(rng, "wood", "stone", "ground", "plastic", "copper") * F32(rng.uniform(0.5, 1.1))
    lump = (
        stuff
        * relief(alpha + F32(0.1) * fractal(rng, n, 16, 3), rng.uniform(0, 6.3), 0.8)[..., None]
    )
    return mix(picture, lump, alpha), alpha


def discoloration(rng: Rng, picture: Array, support: Array) -> Change:
    """A bleached, yellowed or darkened region without an edge."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.16, 0.45), rng.uniform(0.05, 0.3))
    alpha = smoothstep(1.3 - r, 0, rng.uniform(0.3, 0.8)) * support
    gain = np.array(
        [
            (1.25, 1.22, 1.15),
            (1.12, 1.02, 0.7),
            (0.65, 0.65, 0.68),
            (1.0, 0.8, 0.7),
            (0.75, 0.9, 0.8),
        ][int(rng.integers(5))],
        F32,
    )
    new = np.clip(picture * gain, 0, 1)
    grey = new.mean(2, keepdims=True)
    new = new + (grey - new) * F32(rng.uniform(0, 0.6))
    return mix(picture, new, alpha), alpha


def broken_edge(rng: Rng, picture: Array, support: Array) -> Change:
    """A bite out of the outline of an object; what lies behind shows."""
    n = picture.shape[0]
    soft = blur(support, max(1.0, n / 100))
    ys, xs = np.nonzero(np.abs(soft - 0.5) < 0.2)
    if len(ys) == 0:
        return contamination(rng, picture, support)
    k = int(rng.integers(len(ys)))
    at = (float(xs[k]) / n * 2 - 1, float(ys[k]) / n * 2 - 1)
    r = radial(rng, n, at, size_of(rng, 0.12, 0.3), rng.uniform(0.08, 0.2))
    bite = cover(r - 1, 0.12) * support
    outside = support < 0.05
    behind = picture[outside].mean(0) if outside.any() else tone(rng, "ground")
    face = behind * F32(rng.uniform(0.7, 0.95)) + F32(0.03) * smooth(rng, n, 30)[..., None]
    return mix(picture, face.astype(F32), bite), bite


def scorch(rng: Rng, picture: Array, support: Array) -> Change:
    """A burn: brown at the edge, near black inside, feathered."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.1, 0.3), 0.2)
    outer = smoothstep(1.4 - r, 0, 0.9) * support
    inner = smoothstep(0.8 - r, 0, 0.8) * support
    brown = picture * np.array((0.6, 0.45, 0.3), F32)
    burnt = mix(picture, brown, outer * F32(0.85))
    return mix(burnt, np.array((0.08, 0.06, 0.05), F32), inner * F32(rng.uniform(0.3, 0.85))), outer


def fold(rng: Rng, picture: Array, support: Array) -> Change:
    """A crease: a light and a dark band side by side along a bent line."""
    n = picture.shape[0]
    path = walk(rng, n, spot(rng, support), rng.uniform(0.5, 1.4), rng.uniform(0.2, 1.2), 0.05, 16)
    width = _px(n, rng.uniform(4, 9))
    band = blur(stroke(n, path, width), width / 3)
    shift = F32(width * 0.45)
    a = rng.uniform(0, 6.3)
    move = np.array((np.cos(a), np.sin(a)), F32) * shift
    light = blur(stroke(n, path + move, width * 0.6), width / 3)
    dark = blur(stroke(n, path - move, width * 0.6), width / 3)
    shade = 1 + F32(rng.uniform(0.35, 0.7)) * (light - dark)
    inside = np.clip(band * 1.4, 0, 1) * support
    return mix(picture, picture * shade[..., None], inside), inside


def bubble(rng: Rng, picture: Array, support: Array) -> Change:
    """One to five raised blisters with a highlight."""
    n = picture.shape[0]
    x, y = grid(n)
    cx, cy = spot(rng, support)
    height = np.zeros((n, n), F32)
    for _ in range(int(rng.integers(1, 6))):
        radius = size_of(rng, 0.05, 0.14)
        q = np.hypot(x - F32(cx + rng.normal(0, 0.1)), y - F32(cy + rng.normal(0, 0.1))) / F32(
            radius
        )
        height = np.maximum(height, np.sqrt(np.clip(1 - q * q, 0, 1)))
    inside = np.clip(height * 4, 0, 1) * support
    a = rng.uniform(0, 6.3)
    lit = picture * relief(blur(height, 1.0), a, rng.uniform(1.5, 3.5))[..., None]
    return mix(picture, lit, inside), inside


def abrasion(rng: Rng, picture: Array, support: Array) -> Change:
    """A rubbed patch: the pattern is smeared and dulled along one direction."""
    n = picture.shape[0]
    r = radial(rng, n, spot(rng, support), size_of(rng, 0.14, 0.36), 0.2, 3)
    alpha = cover(r - 1, 0.4) * support
    along = int(rng.integers(2))
    reach = max(2, round(_px(n, 5)))
    shifted = [np.roll(picture, k, along) for k in range(-reach, reach + 1)]
    smear: Array = np.sum(shifted, axis=0) / (2 * reach + 1)
    lines = smooth(rng, n, 4, 90) if along else smooth(rng, n, 90, 4)
    smear = smear * (F32(rng.choice([0.82, 1.15])) + F32(0.07) * lines)[..., None]
    return mix(picture, np.clip(smear, 0, 1).astype(F32), alpha), alpha


TEST_DEFECTS: dict[str, Defect] = {
    "crack": crack,
    "hole": hole,
    "stain": stain,
    "dent": dent,
    "thread": thread,
}
TRAIN_DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "contamination": contamination,
    "discoloration": discoloration,
    "broken edge": broken_edge,
    "scorch": scorch,
    "fold": fold,
    "bubble": bubble,
    "abrasion": abrasion,
}
