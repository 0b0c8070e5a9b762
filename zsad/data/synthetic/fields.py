"""Gives the building blocks of generated pictures: noise, coordinates, shapes, light.

Every field is a float32 array [n, n]; coordinates run from -1 to 1.  Noise comes from a coarse
grid of random numbers that two small matrices spread over the picture (cubic B-spline), which
costs two matrix products instead of a filter.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.floating[Any]]  # float32 throughout; numpy's types cannot say it
Rng = np.random.Generator
F32 = np.float32
UNNOTICED = 1e-30  # beside the values of a picture


@lru_cache(maxsize=256)
def _spline(n: int, k: int) -> Array:
    """[n, k] rows of cubic B-spline weights, each of Euclidean length 1 (keeps the variance)."""
    at = (np.arange(n) + 0.5) / n * k + 1.0  # position among k + 3 control points
    out = np.zeros((n, k + 3))
    base = np.floor(at).astype(int)
    t = at - base
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    for offset, weight in enumerate(weights):
        out[np.arange(n), np.clip(base - 1 + offset, 0, k + 2)] += weight
    return np.ascontiguousarray(out / np.linalg.norm(out, axis=1, keepdims=True), dtype=F32)


def smooth(rng: Rng, n: int, kx: int, ky: int | None = None) -> Array:
    """Smooth noise of unit variance with about ``kx`` by ``ky`` bumps over the picture."""
    ky = kx if ky is None else ky
    coarse = rng.standard_normal((ky + 3, kx + 3), dtype=F32)
    return _spline(n, ky) @ coarse @ _spline(n, kx).T


def fractal(rng: Rng, n: int, base: int = 3, octaves: int = 5, gain: float = 0.6) -> Array:
    """Sum of :func:`smooth` at doubling frequency, scaled to unit variance."""
    total = np.zeros((n, n), F32)
    power = 0.0
    for o in range(octaves):
        total += F32(gain**o) * smooth(rng, n, min(base * 2**o, n))
        power += gain ** (2 * o)
    return total / F32(np.sqrt(power))


@lru_cache(maxsize=32)
def _blur_matrix(n: int, sigma: float) -> Array:
    """[n, n] Gaussian filter with renormalised borders.

    Weights that no sum can notice are zero: many would be too small for a processor to multiply
    by at its speed."""
    d = np.arange(n)[:, None] - np.arange(n)[None]
    w = np.exp(-0.5 * (d / sigma) ** 2)
    kernel: Array = w / w.sum(1, keepdims=True)
    return np.where(kernel < UNNOTICED, 0, kernel).astype(F32)


def blur(field: Array, sigma: float) -> Array:
    """Gaussian blur of [n, n] or [n, n, c]; ``sigma`` in pixels, rounded to quarters."""
    sigma = max(0.25, round(sigma * 4) / 4)
    w = _blur_matrix(field.shape[0], sigma)
    if field.ndim == 2:
        return w @ field @ w.T
    return np.moveaxis(np.stack([w @ field[..., c] @ w.T for c in range(field.shape[2])]), 0, 2)


@lru_cache(maxsize=8)
def grid(n: int) -> tuple[Array, Array]:
    """(x, y), each [n, n], from -1 to 1."""
    axis = ((np.arange(n, dtype=F32) + 0.5) / n * 2 - 1).astype(F32)
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def pose(
    n: int, angle: float, scale: float = 1.0, cx: float = 0.0, cy: float = 0.0
) -> tuple[Array, Array]:
    """Coordinates of a thing turned by ``angle`` (radians), of size ``scale``, at (cx, cy)."""
    x, y = grid(n)
    c, s = F32(np.cos(angle) / scale), F32(np.sin(angle) / scale)
    dx, dy = x - F32(cx), y - F32(cy)
    return c * dx + s * dy, c * dy - s * dx


def table(rng: Rng, u: Array, v: Array, rows: int, cols: int) -> Array:
    """Random numbers in 0..1 on a periodic grid, read bilinearly at (u * rows, v * cols)."""
    values = rng.random((rows, cols), dtype=F32)
    fu, fv = u * F32(rows), v * F32(cols)
    iu, iv = np.floor(fu), np.floor(fv)
    tu, tv = fu - iu, fv - iv
    a, b = iu.astype(np.int32) % rows, iv.astype(np.int32) % cols
    a1, b1 = (a + 1) % rows, (b + 1) % cols
    a, a1 = a * cols, a1 * cols  # where a row begins
    top = values.take(a + b) * (1 - tv) + values.take(a + b1) * tv
    low = values.take(a1 + b) * (1 - tv) + values.take(a1 + b1) * tv
    read: Array = top * (1 - tu) + low * tu
    return read


def cells(rng: Rng, u: Array, v: Array, jitter: float = 0.8) -> tuple[Array, Array, Array]:
    """Cellular noise: distances to the nearest and second nearest point, and a number in 0..1
    per cell.  One cell is about one unit of ``u`` and ``v``."""
    side = 64
    jx = rng.random((side, side), dtype=F32)
    jy = rng.random((side, side), dtype=F32)
    tone = rng.random((side, side), dtype=F32)
    bu, bv = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    fu, fv = u - bu, v - bv
    first = np.full(u.shape, 9.0, F32)
    second = np.full(u.shape, 9.0, F32)
    value = np.zeros(u.shape, F32)
    pad = F32((1 - jitter) / 2)
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            at = (bu + du) % side * side + (bv + dv) % side
            ex = F32(du) + pad + F32(jitter) * jx.take(at) - fu
            ey = F32(dv) + pad + F32(jitter) * jy.take(at) - fv
            d = ex * ex + ey * ey
            nearer = d < first
            second = np.where(nearer, first, np.minimum(second, d))
            value = np.where(nearer, tone.take(at), value)
            first = np.minimum(first, d)
    return np.sqrt(first), np.sqrt(second), value


# -------------------------------------------------------------------------------- shapes
def cover(distance: Array, soft: float) -> Array:
    """1 inside (distance < 0), 0 outside, with a ramp ``soft`` wide."""
    inside: Array = np.clip(F32(0.5) - distance / F32(soft), 0, 1)
    return inside


def smoothstep(x: Array, low: float, high: float) -> Array:
    t: Array = np.clip((x - F32(low)) / F32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """Signed distance to a box of half sides (a, b) with rounded corners."""
    qx = np.abs(u) - F32(a - corner)
    qy = np.abs(v) - F32(b - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - F32(corner)


def polygon(u: Array, v: Array, sides: int, radius: float) -> Array:
    """Signed distance (inside exact) to a regular polygon of inner radius ``radius``."""
    out = np.full(u.shape, -9.0, F32)
    for k in range(sides):
        a = 2 * np.pi * k / sides
        out = np.maximum(out, F32(np.cos(a)) * u + F32(np.sin(a)) * v)
    return out - F32(radius)


def stroke(n: int, points: Array, width: float | Array) -> Array:
    """Alpha of a polyline.  ``points`` [p, 2] as (x, y) in pixels; ``width`` in pixels."""
    picture = Image.new("L", (2 * n, 2 * n))
    draw = ImageDraw.Draw(picture)
    widths = np.broadcast_to(np.asarray(width, F32), (len(points),))
    for (x0, y0), (x1, y1), w in zip(points[:-1], points[1:], widths, strict=False):
        wide = 2 * float(w)
        draw.line((2 * x0, 2 * y0, 2 * x1, 2 * y1), fill=255, width=max(1, round(wide)))
        if wide > 3:
            draw.ellipse(
                (2 * x1 - wide / 2, 2 * y1 - wide / 2, 2 * x1 + wide / 2, 2 * y1 + wide / 2),
                fill=255,
            )
    return np.asarray(picture.reduce(2), F32) / F32(255)


# --------------------------------------------------------------------------------- light
def relief(height: Array, angle: float, strength: float) -> Array:
    """Shading factor around 1 of a surface of the given height, lit from ``angle``."""
    slope_x = np.zeros_like(height)
    slope_y = np.zeros_like(height)
    slope_x[:, 1:-1] = height[:, 2:] - height[:, :-2]
    slope_y[1:-1] = height[2:] - height[:-2]
    shade = F32(np.cos(angle)) * slope_x + F32(np.sin(angle)) * slope_y
    return np.clip(1 - F32(strength) * shade, 0.35, 1.8)


def mix(first: Array, second: Array, t: Array) -> Array:
    """Blend two colours ([3]) or pictures ([n, n, 3]) by ``t`` [n, n].

    The three planes lie one behind the other in memory, and so do those of what is made of them:
    numpy is several times faster along rows than along colours."""
    planes = np.empty((3, *t.shape), F32)
    rest = 1 - t
    for c, plane in enumerate(planes):
        one, other = (x[c : c + 1] if x.ndim == 1 else x[..., c] for x in (first, second))
        plane[...] = one * rest + other * t
    return np.moveaxis(planes, 0, 2)


def over(picture: Array, alpha: Array, paint: Array) -> Array:
    """Paint ([3] or [n, n, 3]) over a picture."""
    return mix(picture, paint, alpha)
