"""Makes the named textures: five to train on, four held out.

Held out: wood, leather, perforated sheet, tile.  Each maker draws colour, scale, direction and
irregularity anew; a :class:`~zsad.data.synthetic.scene.Flaw` is built in where the maker knows it.
"""

from __future__ import annotations

import numpy as np

from zsad.data.synthetic.fields import (
    F32,
    Rng,
    box,
    cells,
    cover,
    fractal,
    grid,
    mix,
    over,
    pose,
    relief,
    smooth,
    smoothstep,
    table,
)
from zsad.data.synthetic.palette import pick
from zsad.data.synthetic.scene import Flaw, Scene, surface, whole


def _angle(rng: Rng, spread: float = 0.12) -> float:
    return float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, spread))


# ----------------------------------------------------------------------------- held out
def wood(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Sawn or planed wood: year rings cut lengthwise, fibres, now and then a knot or seams."""
    dark, light = pick(rng, "wood")
    u, v = pose(n, _angle(rng))
    bend = F32(rng.uniform(0.04, 0.16)) * smooth(rng, n, 2) + F32(0.012) * smooth(rng, n, 7)
    rings = u + bend
    if rng.random() < 0.3:  # a knot pushes the rings aside
        kx, ky = rng.uniform(-0.8, 0.8, 2)
        d = np.hypot((u - F32(kx)) * 2, v - F32(ky))
        rings = rings + F32(rng.uniform(0.1, 0.25)) * np.exp(-((d * F32(rng.uniform(2.5, 4))) ** 2))
    t = 0.5 + 0.5 * np.sin(F32(2 * np.pi * rng.uniform(3, 8)) * rings)
    t = t ** F32(rng.uniform(0.5, 2.5))
    fibre = table(rng, u + bend * F32(0.3), v, 128, 4)
    fibre2 = table(rng, u, v, 61, 2)
    t = 0.75 - F32(rng.uniform(0.25, 0.5)) * t + 0.3 * (fibre - 0.5) + 0.25 * (fibre2 - 0.5)
    picture = surface(rng, n, dark, light, t, 0.012)
    if rng.random() < 0.25:  # boards side by side
        pitch = rng.uniform(0.5, 0.9)
        w = (u / F32(pitch) + F32(rng.random())) % 1.0
        board = np.floor(u / F32(pitch) + 9)
        picture = picture * (1 + F32(0.05) * np.sin(board * 7.3))[..., None]
        picture = picture * (1 - 0.5 * cover(np.abs(w - 0.5) * F32(pitch) - 0.006, 0.02))[..., None]
    return Scene(picture, whole(n), (dark + light) / 2)


def leather(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Embossed hide: pebbles between fine furrows."""
    dark, light = pick(rng, "leather")
    scale = rng.uniform(13, 24)
    u, v = pose(n, rng.uniform(0, np.pi), 1 / scale)
    u = u + F32(0.5) * smooth(rng, n, 8)
    v = v * F32(rng.uniform(0.75, 1)) + F32(0.5) * smooth(rng, n, 8)
    first, second, value = cells(rng, u + 40, v + 40, 0.95)
    furrow = smoothstep(second - first, 0.0, rng.uniform(0.3, 0.5))
    shade = relief(furrow, rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.35))
    t = 0.3 + 0.35 * furrow + 0.15 * value + 0.1 * fractal(rng, n, 3, 4)
    picture = surface(rng, n, dark, light, t, 0.014) * shade[..., None]
    return Scene(picture, whole(n), (dark + light) / 2)


def perforated(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Perforated sheet metal.  ``missing part``: the punch left one to three holes out."""
    dark, light = pick(rng, "steel", "paint")
    pitch = rng.uniform(0.16, 0.3)
    u, v = pose(n, rng.normal(0, 0.1), pitch, *rng.uniform(-pitch, pitch, 2))
    staggered = rng.random() < 0.6
    row = np.floor(v + F32(0.5))
    if staggered:
        u = u + F32(0.5) * (row % 2)
    col = np.floor(u + F32(0.5))
    radius = rng.uniform(0.24, 0.38)
    d = np.hypot(u - col, v - row) - F32(radius)
    px = 2 / n / pitch
    open_ = cover(d, 2.5 * px)
    if flaw is not None:
        closed = np.zeros((n, n), bool)
        inner = (np.abs(row) * pitch < 0.8) & (np.abs(col) * pitch < 0.8)
        choice = np.unique(np.stack([row[inner], col[inner]], 1), axis=0)
        r0, c0 = choice[int(flaw.rng.integers(len(choice)))]
        for k in range(int(flaw.rng.integers(1, 4))):
            closed |= (row == r0) & (col == c0 + k)
        open_ = np.where(closed, 0, open_)
        d = np.where(closed, 1, d)
    brushed = table(rng, grid(n)[1], grid(n)[0], 150, 3)
    t = 0.5 + 0.25 * smooth(rng, n, 2) + F32(rng.uniform(0.05, 0.3)) * (brushed - 0.5)
    rim = np.exp(-((d / F32(3 * px)) ** 2))
    picture = surface(rng, n, dark, light, t, 0.012)
    a = rng.uniform(0, 2 * np.pi)
    lit = ((u - col) * F32(np.cos(a)) + (v - row) * F32(np.sin(a))) / F32(radius)
    picture = picture * (1 + 0.25 * rim * lit)[..., None]
    under = (
        np.full(3, rng.uniform(0.05, 0.14), F32) if rng.random() < 0.7 else pick(rng, "ground")[1]
    )
    return Scene(over(picture, open_, under), whole(n), (dark + light) / 2)


def tile(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Glazed tiles with grout.  ``missing part``: a corner of a tile is broken out to the bed."""
    dark, light = pick(rng, "ceramic")
    pitch = rng.uniform(0.45, 0.85)
    aspect = rng.choice([1.0, 1.0, 2.0])
    u, v = pose(n, rng.normal(0, 0.04), pitch, *rng.uniform(-pitch, pitch, 2))
    v = v * F32(aspect)
    row = np.floor(v + F32(0.5))
    if rng.random() < 0.5:
        u = u + F32(0.5) * (row % 2)
    col = np.floor(u + F32(0.5))
    px = 2 / n / pitch
    gap = rng.uniform(0.025, 0.06)
    lu, lv = u - col, v - row
    d = box(lu, lv / F32(aspect), 0.5 - gap, 0.5 / aspect - gap, 0.03)
    glaze = cover(d, 2 * px)
    lookup = rng.random((32, 32), dtype=F32)
    value = lookup[row.astype(int) % 32, col.astype(int) % 32]
    t = 0.35 + F32(rng.uniform(0.1, 0.5)) * value + 0.1 * fractal(rng, n, 4, 4)
    face = surface(rng, n, dark, light, t, 0.008)
    edge = np.exp(-((np.maximum(-d, 0) / F32(0.03)) ** 2))
    a = rng.uniform(0, 2 * np.pi)
    face = face * (1 + 0.18 * edge * (F32(np.cos(a)) * lu + F32(np.sin(a)) * lv) * 2)[..., None]
    grout = surface(rng, n, *pick(rng, "stone"), 0.5 + 0.2 * fractal(rng, n, 20, 3), 0.03)
    if flaw is not None:
        inner = (np.abs(grid(n)[0]) < 0.75) & (np.abs(grid(n)[1]) < 0.75) & (glaze > 0.9)
        near = (
            inner
            & (np.abs(d) < 0.08)
            & (np.minimum(np.abs(lu), np.abs(lv) / aspect) > 0.2 / aspect)
        )
        ys, xs = np.nonzero(near if near.any() else inner)
        k = int(flaw.rng.integers(len(ys)))
        x, y = grid(n)
        reach = np.hypot(x - x[ys[k], xs[k]], y - y[ys[k], xs[k]]) / F32(
            flaw.rng.uniform(0.09, 0.22)
        )
        glaze = glaze * cover(0.9 - reach - 0.12 * fractal(flaw.rng, n, 12, 3), 0.12)
    return Scene(over(grout, glaze, face), whole(n), (dark + light) / 2)


# ----------------------------------------------------------------------------- to train on
def woven(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Plain or twill weave of two yarns."""
    dark, light = pick(rng, "cloth")
    second = pick(rng, "cloth")[1] if rng.random() < 0.3 else light
    count = rng.uniform(9, 20)
    u, v = pose(n, _angle(rng, 0.2), 1 / count)
    u = u + F32(0.25) * smooth(rng, n, 4)
    v = v + F32(0.25) * smooth(rng, n, 4)
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu - F32(0.5), v - iv - F32(0.5)
    step = int(rng.integers(2, 5))
    warp_up = ((iu + iv) % step) < step / 2
    across = np.where(warp_up, fu, fv)
    along = np.where(warp_up, fv, fu)
    height = np.sqrt(np.clip(1 - (across * 2) ** 2, 0, 1)) * (1 - F32(0.8) * along**2)
    yarn = table(rng, np.where(warp_up, iu, iv) / 64, np.where(warp_up, v, u) / 200, 64, 128)
    t = 0.1 + 0.75 * height + 0.25 * (yarn - 0.5)
    base = mix(light, second, warp_up.astype(F32))
    picture = mix(dark * F32(0.8), base, np.clip(t, 0, 1))
    return Scene(picture + F32(0.015) * rng.standard_normal((n, n, 1), dtype=F32), whole(n), light)


def wire_grid(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A welded wire grid before a ground.  ``misplaced``: one wire lies beside its place."""
    pitch = rng.uniform(0.2, 0.42)
    u, v = pose(n, rng.uniform(-0.8, 0.8), pitch, *rng.uniform(-pitch, pitch, 2))
    width = rng.uniform(0.09, 0.17)
    px = 2 / n / pitch
    picture = surface(rng, n, *pick(rng, "ground"), 0.5 + 0.2 * fractal(rng, n, 4, 4), 0.015)
    dark, light = pick(rng, "steel", "steel", "plastic")
    alpha_all = np.zeros((n, n), F32)
    rows = [(v, u), (u, v)]
    if flaw is not None:
        reach = int(0.5 / pitch)
        wire = F32(flaw.rng.integers(-reach, reach + 1))
        off = flaw.rng.choice([-1, 1]) * flaw.rng.uniform(0.22, 0.42)
        w = rows[1][0]
        on = np.abs(w - wire) < 0.5
        where = cover(
            np.abs(rows[1][1] - F32(flaw.rng.uniform(-1, 1))) - F32(flaw.rng.uniform(0.7, 1.6)), 0.6
        )
        rows[1] = (np.where(on, w - F32(off) * where, w), rows[1][1])
    for across, along in rows:
        d = np.abs(across - np.floor(across + F32(0.5)))
        d = d + F32(0.012) * np.sin(along * F32(np.pi))
        alpha = cover(d - F32(width), 2 * px)
        round_ = np.sqrt(np.clip(1 - (d / F32(width)) ** 2, 0, 1))
        picture = over(picture, alpha, mix(dark * F32(0.6), light * F32(1.05), round_))
        alpha_all = np.maximum(alpha_all, alpha)
    return Scene(picture, whole(n), light)


def brushed_metal(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Sheet with a directed brush finish and a broad sheen."""
    dark, light = pick(rng, "steel", "steel", "brass")
    u, v = pose(n, _angle(rng, 0.3))
    lines = table(rng, u, v, 190, 3) + table(rng, u, v, 83, 2)
    sheen = np.exp(
        -(((u if rng.random() < 0.5 else v) - F32(rng.uniform(-1, 1))) ** 2)
        * F32(rng.uniform(0.5, 3))
    )
    t = 0.2 + F32(rng.uniform(0.15, 0.45)) * (lines - 1) + 0.4 * sheen + 0.08 * smooth(rng, n, 3)
    return Scene(surface(rng, n, dark, light, t, 0.014), whole(n), (dark + light) / 2)


def marble(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Polished stone with clouds and veins."""
    dark, light = pick(rng, "stone")
    cloud = fractal(rng, n, 2, 5, 0.55)
    turned = fractal(rng, n, 3, 4, 0.5)
    vein = np.exp(-np.abs(turned) * F32(rng.uniform(8, 18)))
    t = 0.6 + 0.18 * cloud - F32(rng.uniform(0.2, 0.5)) * vein
    return Scene(surface(rng, n, dark, light, t, 0.008), whole(n), (dark + light) / 2)


def carpet(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Tufted pile in rows, mottled."""
    dark, light = pick(rng, "cloth")
    count = rng.uniform(16, 28)
    u, v = pose(n, _angle(rng, 0.1), 1 / count)
    first, _, value = cells(
        rng, u + 40 + F32(0.2) * smooth(rng, n, 5), v + 40, rng.uniform(0.4, 0.9)
    )
    t = 0.85 - 0.75 * first + 0.35 * (value - 0.5) + 0.08 * fractal(rng, n, 3, 3)
    return Scene(surface(rng, n, dark, light, t, 0.03), whole(n), (dark + light) / 2)
