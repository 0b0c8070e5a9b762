"""Makes endless further textures, objects and defects, for training only (the train group).

A model that has seen five textures learns five textures.  These families draw the *law* of a
surface anew for every picture (lattice and motif, stripes, cells, clouds, plaids; parts and their
symmetry), and a defect as a random outline filled in a random way, so that what remains to be
learned is what an anomaly is: a place that breaks the law of the rest.  Nothing of the held-out
makers and defects is used here.
"""

from __future__ import annotations

import numpy as np

from zsad.data.synthetic.defects import Change, radial, size_of, spot, walk
from zsad.data.synthetic.fields import (
    F32,
    Array,
    Rng,
    blur,
    box,
    cells,
    cover,
    fractal,
    grid,
    mix,
    over,
    polygon,
    pose,
    relief,
    smooth,
    smoothstep,
    stroke,
    table,
)
from zsad.data.synthetic.palette import ALL, pick, tone
from zsad.data.synthetic.scene import Flaw, Scene, background, drop_shadow, surface, whole

MOTIFS = ("diamond", "square", "cross", "star", "ring", "bar", "stud", "leaf")
LAWS = (
    "stripes",
    "lattice",
    "bricks",
    "cells",
    "clouds",
    "plaid",
    "speckle",
    "waves",
    "rings",
    "strata",
)


def motif(name: str, u: Array, v: Array, r: float) -> Array:
    """Signed distance of a motif of size ``r`` in a unit cell."""
    if name == "diamond":
        return (np.abs(u) + np.abs(v)) * F32(0.8) - F32(r)
    if name == "square":
        return box(u, v, r, r, r * 0.2)
    if name == "cross":
        return np.minimum(box(u, v, r * 1.1, r * 0.35), box(u, v, r * 0.35, r * 1.1))
    if name == "star":
        star: Array = np.hypot(u, v) * (1 + F32(0.3) * np.cos(5 * np.arctan2(v, u))) - F32(r)
        return star
    if name == "ring":
        return np.abs(np.hypot(u, v) - F32(r)) - F32(r * 0.3)
    if name == "bar":
        return box(u, v, r * 1.2, r * 0.4, r * 0.2)
    if name == "leaf":
        leaf: Array = np.hypot(u, v * 2.2) - F32(r * 1.2)
        return leaf
    return np.hypot(u, v) - F32(r)


def law(rng: Rng, n: int) -> tuple[Array, Array]:
    """A pattern t in about 0..1 and a height field, by a random law."""
    name = LAWS[int(rng.integers(len(LAWS)))]
    freq = float(np.exp(rng.uniform(np.log(2.5), np.log(16))))
    u, v = pose(n, rng.uniform(0, np.pi), 1 / freq, *rng.uniform(-1, 1, 2))
    u, v = u + 50, v + 50
    if rng.random() < 0.5:
        amount = rng.uniform(0.05, 0.5)
        u = u + F32(amount) * smooth(rng, n, int(rng.integers(2, 6)))
        v = v + F32(amount) * smooth(rng, n, int(rng.integers(2, 6)))
    if name == "stripes":
        t = 0.5 + 0.5 * np.sin(u * F32(2 * np.pi))
        t = smoothstep(t, 0.5 - rng.uniform(0.05, 0.5), 0.5 + rng.uniform(0.05, 0.5))
    elif name == "waves":
        t = 0.5 + 0.5 * np.sin(
            F32(2 * np.pi) * (u + F32(rng.uniform(0.1, 0.6)) * np.sin(v * F32(rng.uniform(1, 6))))
        )
    elif name == "rings":
        t = 0.5 + 0.5 * np.sin(np.hypot(u - 50, v - 50) * F32(rng.uniform(2, 6)))
    elif name in ("lattice", "bricks"):
        aspect = F32(rng.choice([1, 1, 2, 3]) if name == "bricks" else 1)
        v = v * aspect
        row = np.floor(v)
        u = u + F32(rng.choice([0, 0.5, 0.33])) * (row % 2)
        col = np.floor(u)
        lu, lv = u - col - F32(0.5), v - row - F32(0.5)
        if name == "bricks":
            gap = rng.uniform(0.03, 0.12)
            d = box(lu, lv / aspect, 0.5 - gap, 0.5 / float(aspect) - gap, 0.03)
        else:
            d = motif(MOTIFS[int(rng.integers(len(MOTIFS)))], lu, lv, rng.uniform(0.18, 0.36))
        lookup = rng.random((64, 64), dtype=F32)
        value = lookup[row.astype(int) % 64, col.astype(int) % 64]
        t = cover(d, max(0.03, 4 * freq / n)) * (1 - F32(rng.uniform(0, 0.4)) * value)
        if rng.random() < 0.4:
            t = 1 - t
    elif name == "cells":
        first, second, value = cells(rng, u, v, rng.uniform(0.3, 1))
        kind = rng.integers(3)
        t = (value, smoothstep(second - first, 0.02, 0.3), 1 - first)[int(kind)]
    elif name == "plaid":
        t = 0.25 * (
            2
            + np.sign(np.sin(u * 4)) * F32(rng.random())
            + np.sin(v * 4)
            + 0.6 * np.sin(u * 11 + v * F32(rng.choice([0, 11])))
        )
    elif name == "speckle":
        t = smoothstep(
            smooth(rng, n, int(rng.integers(30, 100))), rng.uniform(-1, 1), rng.uniform(1.1, 2)
        )
    elif name == "strata":
        t = table(rng, u / 60, v / 60, 128, int(rng.integers(1, 30)))
    else:
        t = 0.5 + 0.25 * fractal(rng, n, int(rng.integers(2, 12)), 5, rng.uniform(0.4, 0.8))
    return t.astype(F32, copy=False), t


def any_texture(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A texture by a random law, often two laws over each other."""
    t, height = law(rng, n)
    if rng.random() < 0.5:
        second, _ = law(rng, n)
        weight = F32(rng.uniform(0.1, 0.5))
        t = t * (1 - weight) + second * weight
    dark, light = pick(rng, *ALL)
    if rng.random() < 0.35:
        light = tone(rng, *ALL)
    low, high = sorted(rng.uniform(-0.1, 1.1, 2))
    if high - low < 0.3:
        low, high = low - 0.2, high + 0.2
    t = F32(low) + F32(high - low) * t + F32(rng.uniform(0, 0.15)) * fractal(rng, n, 3, 5)
    picture = surface(rng, n, dark, light, t, rng.uniform(0.004, 0.04))
    if rng.random() < 0.4:
        picture = picture * relief(height, rng.uniform(0, 6.3), rng.uniform(0.1, 0.6))[..., None]
    return Scene(picture, whole(n), (dark + light) / 2)


def outline(rng: Rng, u: Array, v: Array) -> Array:
    """Signed distance of a random outline of size about 1 (no hexagons: a held-out outline)."""
    kind = rng.integers(6)
    if kind == 0:
        return box(u, v, rng.uniform(0.6, 1), rng.uniform(0.4, 1), rng.uniform(0, 0.4))
    if kind == 1:
        return polygon(u, v, int(rng.choice([3, 4, 5, 8])), rng.uniform(0.6, 0.9))
    if kind == 2:
        p = F32(rng.uniform(1.2, 4))
        return (
            (np.abs(u) + F32(1e-3)) ** p + (np.abs(v) / F32(rng.uniform(0.5, 1)) + F32(1e-3)) ** p
        ) ** (1 / p) - F32(0.95)
    theta = np.arctan2(v, u)
    k = int(rng.integers(3, 20))
    if kind == 3:  # gear or flower
        teeth = np.clip(np.cos(k * theta) * 3, -1, 1)
        gear: Array = np.hypot(u, v) - F32(0.85) - F32(rng.uniform(0.03, 0.15)) * teeth
        return gear
    if kind == 4:  # washer
        r = np.hypot(u, v)
        return np.maximum(r - F32(0.95), F32(rng.uniform(0.2, 0.6)) - r)
    a, b = rng.uniform(0.2, 0.45, 2)
    return np.minimum(
        box(u, v, 0.95, a, 0.05),
        box(u - F32(rng.uniform(-0.6, 0.6)), v, b, rng.uniform(0.6, 0.9), 0.05),
    )


def fill(rng: Rng, n: int, d: Array) -> Array:
    """Paint for a part: plain, textured or rounded."""
    dark, light = pick(rng, *ALL)
    kind = rng.random()
    if kind < 0.3:
        t, _ = law(rng, n)
        t = 0.2 + F32(rng.uniform(0.3, 0.8)) * t
    else:
        t = 0.5 + 0.15 * smooth(rng, n, 3)
    paint = surface(rng, n, dark, light, t, rng.uniform(0.004, 0.025))
    if rng.random() < 0.6:
        bevel = smoothstep(-d, 0, rng.uniform(0.05, 0.5))
        paint = paint * relief(bevel, rng.uniform(0, 6.3), rng.uniform(0.5, 3))[..., None]
    return paint


def any_object(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A random outline with parts in a symmetric arrangement.  ``misplaced``: one of the parts
    has moved."""
    scale = rng.uniform(0.55, 0.95)
    u, v = pose(n, rng.uniform(-np.pi, np.pi), scale, *rng.uniform(-0.1, 0.1, 2))
    px = 2 / n / scale
    d = outline(rng, u, v)
    alpha = cover(d, 2 * px)
    body = fill(rng, n, d)
    if rng.random() < 0.5:
        rim = np.exp(-(((d + F32(rng.uniform(0.05, 0.15))) / F32(rng.uniform(0.01, 0.05))) ** 2))
        body = body * (1 + F32(rng.uniform(-0.35, 0.35)) * rim)[..., None]
    groups = int(rng.integers(0, 3))
    for g in range(groups):
        count = int(rng.integers(2, 9))
        size = rng.uniform(0.07, 0.2)
        centres = _arrangement(rng, count, size)
        moved = int(flaw.rng.integers(count)) if flaw is not None and g == 0 else -1
        name = MOTIFS[int(rng.integers(len(MOTIFS)))]
        paint = fill(rng, n, np.zeros((n, n), F32))
        turn = rng.uniform(0, 6.3)
        for k, (cx, cy) in enumerate(centres):
            a = turn
            if k == moved and flaw is not None:
                away = flaw.rng.uniform(0, 6.3)
                step = flaw.rng.uniform(0.8, 1.6) * size
                cx, cy = cx + step * np.cos(away), cy + step * np.sin(away)
                a += flaw.rng.uniform(0.4, 1.2)
            c, s = F32(np.cos(a)), F32(np.sin(a))
            lu, lv = c * (u - F32(cx)) + s * (v - F32(cy)), c * (v - F32(cy)) - s * (u - F32(cx))
            part = motif(name, lu, lv, size)
            body = over(
                body,
                cover(part, 2 * px),
                paint * (0.9 + F32(0.2) * cover(part + F32(0.03), 0.05))[..., None],
            )
    ground = background(rng, n) if rng.random() < 0.8 else any_texture(rng, n).picture
    if rng.random() < 0.8:
        ground = drop_shadow(rng, ground, alpha)
    return Scene(over(ground, alpha, body), alpha, body[n // 2, n // 2])


def _arrangement(rng: Rng, count: int, size: float) -> list[tuple[float, float]]:
    kind = rng.integers(3)
    if kind == 0:  # on a circle
        r, turn = rng.uniform(0.35, 0.6), rng.uniform(0, 6.3)
        return [
            (r * np.cos(turn + 6.2832 * k / count), r * np.sin(turn + 6.2832 * k / count))
            for k in range(count)
        ]
    if kind == 1:  # in a row
        at, half = rng.uniform(-0.3, 0.3), 0.6
        return [(-half + 2 * half * k / (count - 1), at) for k in range(count)]
    columns = int(np.ceil(np.sqrt(count)))
    step = max(2.4 * size, 0.9 / columns)
    return [
        ((k % columns - (columns - 1) / 2) * step, (k // columns - (columns - 1) / 2) * step)
        for k in range(count)
    ]


def many_parts(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Several equal objects in a tray."""
    scene_ground = background(rng, n)
    pitch = rng.uniform(0.45, 0.75)
    u, v = pose(n, rng.normal(0, 0.2), pitch, *rng.uniform(-0.3, 0.3, 2))
    col, row = np.floor(u + F32(0.5)), np.floor(v + F32(0.5))
    a = rng.uniform(0, 6.3)
    lu, lv = u - col, v - row
    c, s = F32(np.cos(a) / 0.4), F32(np.sin(a) / 0.4)
    d = outline(rng, c * lu + s * lv, c * lv - s * lu) * F32(0.4)
    alpha = cover(d, 4 / n / pitch)
    body = fill(rng, n, d / F32(0.4))
    ground = drop_shadow(rng, scene_ground, alpha)
    return Scene(over(ground, alpha, body), alpha, body[n // 2, n // 2])


# ------------------------------------------------------------------------------- defects
def any_defect(rng: Rng, picture: Array, support: Array) -> Change:
    """A random outline filled in a random way.

    Lines are straight or zigzag and never branch or lie loose with a shadow, areas of dark depth
    have no lit rim: those are held-out kinds."""
    n = picture.shape[0]
    alpha = _defect_outline(rng, n, spot(rng, support)) * support
    return mix(picture, _defect_fill(rng, picture, alpha), alpha), alpha


def _defect_outline(rng: Rng, n: int, at: tuple[float, float]) -> Array:
    kind = rng.integers(6)
    if kind == 0:
        return cover(
            radial(rng, n, at, size_of(rng, 0.05, 0.35), rng.uniform(0, 0.4), 4) - 1,
            rng.uniform(0.05, 0.8),
        )
    if kind == 1:  # one or several straight or zigzag lines
        line = np.zeros((n, n), F32)
        width = n / 224 * rng.uniform(1, 6)
        for _ in range(int(rng.integers(1, 4))):
            where = (at[0] + rng.normal(0, 0.06), at[1] + rng.normal(0, 0.06))
            path = walk(
                rng,
                n,
                where,
                rng.uniform(0.2, 1.2),
                rng.uniform(0, 1.5),
                rng.choice([0, 0.7]),
                int(rng.integers(3, 14)),
            )
            line = np.maximum(line, stroke(n, path, width))
        return line
    if kind == 2:  # polygonal patch
        u, v = pose(n, rng.uniform(0, 6.3), size_of(rng, 0.06, 0.3), *at)
        return cover(outline(rng, u, v), rng.uniform(0.08, 0.4))
    if kind == 3:  # a cluster of specks
        near = cover(radial(rng, n, at, size_of(rng, 0.12, 0.5), 0.2) - 1, 0.5)
        return smoothstep(smooth(rng, n, int(rng.integers(14, 80))) + 1.5 * near - 2.2, 0, 0.4)
    if kind == 4:  # a torn-out cloud
        near = smoothstep(1.3 - radial(rng, n, at, size_of(rng, 0.1, 0.4), 0.1), 0, 1)
        return smoothstep(near + 0.25 * fractal(rng, n, 6, 4), 0.5, rng.uniform(0.6, 0.95))
    x, y = grid(n)  # a band across
    a = rng.uniform(0, np.pi)
    across = F32(np.cos(a)) * (x - F32(at[0])) + F32(np.sin(a)) * (y - F32(at[1]))
    along = F32(np.sin(a)) * (x - F32(at[0])) - F32(np.cos(a)) * (y - F32(at[1]))
    width = rng.uniform(0.02, 0.12)
    return cover(np.abs(across) - F32(width), 0.03) * cover(
        np.abs(along) - F32(rng.uniform(0.2, 0.9)), 0.1
    )


def _defect_fill(rng: Rng, picture: Array, alpha: Array) -> Array:
    n = picture.shape[0]
    kind = rng.integers(10)
    if kind == 0:  # another material
        return surface(
            rng,
            n,
            *pick(rng, *ALL),
            0.5 + 0.2 * fractal(rng, n, 10, 3),
            0.03,
        )
    if kind == 1:  # darker or lighter
        return (
            picture * F32(rng.uniform(0.2, 0.75))
            if rng.random() < 0.5
            else 1 - (1 - picture) * F32(rng.uniform(0.2, 0.75))
        )
    if kind == 2:  # tinted
        new = picture * (1 + rng.normal(0, 0.3, 3).astype(F32))
        tinted: Array = np.clip(new * F32(rng.uniform(0.7, 1.2)), 0, 1)
        return tinted
    if kind == 3:  # a piece of the same picture from elsewhere
        turned = np.rot90(picture, int(rng.integers(4)))
        return np.roll(turned, (int(rng.integers(n // 6, n)), int(rng.integers(n // 6, n))), (0, 1))
    if kind == 4:  # shifted by a little
        return np.roll(
            picture,
            tuple(int(k) for k in rng.integers(4, n // 10, 2) * rng.choice([-1, 1], 2)),
            (0, 1),
        )
    if kind == 5:  # smeared out
        return blur(picture, float(rng.choice([3, 5, 8])) * n / 224) * F32(rng.uniform(0.85, 1.12))
    if kind == 6:  # embossed, ridged
        return (
            picture
            * relief(
                blur(alpha, 2.0) + F32(0.2) * smooth(rng, n, 20),
                rng.uniform(0, 6.3),
                rng.uniform(2, 5),
            )[..., None]
        )
    if kind == 7:  # grainy
        return (
            picture
            * (1 + F32(rng.uniform(0.15, 0.4)) * smooth(rng, n, int(rng.integers(30, 120))))[
                ..., None
            ]
        )
    if kind == 8:  # a foreign texture
        return any_texture(rng, n).picture
    return mix(
        picture,
        tone(rng, *ALL),
        np.full((n, n), rng.uniform(0.35, 1), F32),
    )
