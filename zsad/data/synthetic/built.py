"""Makes endless further things that are built of parts, for training only (the train group).

Each family draws its construction anew: patterned sheets, strips with a row of parts, turned
parts, rods and printed things.  What they share with real products is regularity: equal parts at
equal distances, rotational symmetry, prints and highlights that belong there.  Their structural
flaws break it: ``misplaced`` (a part sits beside its place) and ``mismatched`` (a part of another
size, colour or kind).  Nothing of the held-out makers and defects is used here.
"""

from __future__ import annotations

import numpy as np

from zsad.data.synthetic.families import MOTIFS, fill, law, motif, outline
from zsad.data.synthetic.fields import (
    F32,
    Array,
    Rng,
    box,
    cover,
    fractal,
    mix,
    over,
    pose,
    relief,
    smooth,
    smoothstep,
    table,
)
from zsad.data.synthetic.palette import ALL, pick, tone
from zsad.data.synthetic.scene import Flaw, Scene, background, drop_shadow, surface, whole

TURN = F32(2 * np.pi)


def _odd(
    flaw: Flaw, chosen: Array, lu: Array, lv: Array, reach: float
) -> tuple[Array, Array, Array]:
    """Local coordinates of the ``chosen`` parts as the flaw leaves them, and where their colour
    is wrong [n, n] in 0..1."""
    if flaw.kind == "misplaced":
        a, step = flaw.rng.uniform(0, 6.3), flaw.rng.uniform(0.6, 1.1) * reach
        return (
            np.where(chosen, lu - F32(step * np.cos(a)), lu),
            np.where(chosen, lv - F32(step * np.sin(a)), lv),
            np.zeros_like(lu),
        )
    way = flaw.rng.integers(3)
    size = F32(1) if way == 0 else F32(flaw.rng.choice([0.5, 0.62, 1.35]))
    wrong = chosen.astype(F32) if way != 1 else np.zeros_like(lu)
    return np.where(chosen, lu / size, lu), np.where(chosen, lv / size, lv), wrong


def _some_cells(flaw: Flaw, row: Array, col: Array, visible: Array) -> Array:
    """One to three neighbouring cells among the visible ones, as a mask [n, n]."""
    cells = np.unique(np.stack([row[visible], col[visible]], 1), axis=0)
    r0, c0 = cells[int(flaw.rng.integers(len(cells)))] if len(cells) else (0, 0)
    chosen: Array = (row == r0) & (col >= c0) & (col < c0 + int(flaw.rng.integers(1, 4)))
    return chosen


def patterned_sheet(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A sheet with a regular pattern of printed, embossed or cut motifs."""
    pitch = rng.uniform(0.13, 0.42)
    u, v = pose(n, rng.uniform(0, np.pi), pitch, *rng.uniform(-pitch, pitch, 2))
    px = 2 / n / pitch
    row = np.floor(v + F32(0.5))
    u = u + F32(rng.choice([0, 0, 0.5, 0.33])) * (row % 2)
    col = np.floor(u + F32(0.5))
    lu, lv = u - col, v - row
    size, name = rng.uniform(0.2, 0.36), MOTIFS[int(rng.integers(len(MOTIFS)))]
    wrong = np.zeros((n, n), F32)
    if flaw is not None:
        visible = (np.abs(row) * pitch < 0.75) & (np.abs(col) * pitch < 0.75)
        lu, lv, wrong = _odd(flaw, _some_cells(flaw, row, col, visible), lu, lv, size)
    a = rng.uniform(0, 6.3)
    c, s = F32(np.cos(a)), F32(np.sin(a))
    d = motif(name, c * lu + s * lv, c * lv - s * lu, size)
    alpha = cover(d, 2.5 * px)
    pattern, _ = law(rng, n)
    t = 0.5 + F32(rng.uniform(0, 0.25)) * (pattern - 0.5) + 0.1 * smooth(rng, n, 3)
    dark, light = pick(rng, *ALL)
    picture = surface(rng, n, dark, light, t, rng.uniform(0.004, 0.02))
    style, angle, depth = rng.integers(3), rng.uniform(0, 6.3), rng.uniform(0.5, 2.5)
    paint = fill(rng, n, np.zeros((n, n), F32))
    if style == 0:  # embossed
        face = picture * relief(cover(d, 6 * px), angle, depth)[..., None]
        picture = mix(face, face * F32(0.8), alpha * F32(rng.uniform(0, 1)))
    elif style == 1:  # cut out
        picture = over(picture, alpha, tone(rng, "ground") * F32(rng.uniform(0.1, 0.9)))
    else:  # printed or laid on
        picture = over(picture, alpha, paint)
    if flaw is not None:
        picture = over(picture, alpha * wrong, tone(flaw.rng, *ALL))
    return Scene(picture, whole(n), (dark + light) / 2)


def strip(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A strip or bar that carries one or two rows of equal parts: pins, studs, slots, links."""
    u, v = pose(n, rng.uniform(0, np.pi), 1.0, *rng.uniform(-0.12, 0.12, 2))
    pitch, half = rng.uniform(0.12, 0.3), rng.uniform(0.18, 0.6)
    px = 2 / n
    full = rng.random() < 0.6  # runs out of the picture
    d = np.abs(v) - F32(half) if full else box(u, v, rng.uniform(0.7, 0.9), half, 0.08)
    alpha = cover(d, 2 * px)
    ground = background(rng, n)
    picture = over(drop_shadow(rng, ground, alpha), alpha, fill(rng, n, d))
    rows = int(rng.integers(1, 3))
    size = min(0.42 * pitch, 0.42 * half)
    long = rng.uniform(1.0, min(2.5, max(1.0, 0.8 * half / rows / size)))
    name = ("bar", "square", "stud", "ring", "diamond")[int(rng.integers(5))]
    where = (0.0,) if rows == 1 else (-0.5, 0.5)
    paint = fill(rng, n, np.zeros((n, n), F32))
    shift, lit = F32(rng.choice([0.0, 0.5])), rng.uniform(0, 6.3)
    depth = rng.uniform(0.3, 2.0)
    bad = -1 if flaw is None else int(flaw.rng.integers(rows))
    for k, at in enumerate(where):
        w = u / F32(pitch) + shift * k
        col = np.floor(w + F32(0.5))
        lu, lv = (w - col) * F32(pitch), v - F32(at * half)
        wrong = np.zeros((n, n), F32)
        if flaw is not None and k == bad:
            visible = np.abs(col) * pitch < 0.6
            chosen = _some_cells(flaw, np.zeros_like(col), col, visible)
            lu, lv, wrong = _odd(flaw, chosen, lu, lv, size)
        part = motif(name, lv / F32(long), lu, size)
        on = cover(part, 2 * px) * alpha
        face = paint * relief(cover(part, 8 * px), lit, depth)[..., None]
        picture = over(picture, on, face)
        if flaw is not None and k == bad:
            picture = over(picture, on * wrong, tone(flaw.rng, *ALL))
    return Scene(picture, alpha, picture[n // 2, n // 2])


def turned_part(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A thing with rotational symmetry seen along its axis: flange, wheel, lid, dial.  Steps and
    grooves by a random profile, highlights along circles, often a circle of equal parts."""
    scale = rng.uniform(0.6, 0.92)
    u, v = pose(n, rng.uniform(-np.pi, np.pi), scale, *rng.uniform(-0.1, 0.1, 2))
    px = 2 / n / scale
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    d = r - 1 if rng.random() < 0.7 else outline(rng, u, v)
    alpha = cover(d, 2 * px)
    dark, light = pick(rng, *ALL)
    steps = int(rng.integers(2, 8))
    edges = np.sort(rng.uniform(0.12, 1.0, steps))
    height = np.zeros((n, n), F32)
    for at, rise in zip(edges, rng.normal(0, 1, steps), strict=True):
        height = height + F32(rise) * cover(r - F32(at), rng.uniform(0.01, 0.08))
    a = rng.uniform(0, 6.3)
    sheen = np.cos(theta * int(rng.integers(1, 3)) - F32(a))
    turning = table(rng, r, theta / TURN, 70, 2)
    t = 0.5 + 0.1 * height + F32(rng.uniform(0, 0.25)) * sheen
    t = t + F32(rng.uniform(0, 0.3)) * (turning - 0.5) + 0.05 * fractal(rng, n, 5, 4)
    body = surface(rng, n, dark, light, t, rng.uniform(0.004, 0.018))
    body = body * relief(height, a, rng.uniform(0.2, 0.9))[..., None]
    for _ in range(int(rng.integers(0, 4))):  # highlights
        at, start = rng.uniform(0.2, 0.98), rng.uniform(0, 6.3)
        away = np.abs((theta - F32(start) + F32(np.pi)) % TURN - F32(np.pi))
        arc = cover(away - F32(rng.uniform(0.3, 1.6)), rng.uniform(0.2, 0.8))
        glint = np.exp(-(((r - F32(at)) / F32(rng.uniform(0.01, 0.04))) ** 2)) * arc
        body = body + F32(rng.uniform(0.1, 0.5)) * glint[..., None]
    ground = background(rng, n)
    centre = rng.random()
    if centre < 0.4:
        mouth = cover(r - F32(rng.uniform(0.15, 0.5)), 3 * px)
        body = over(body, mouth, ground if centre < 0.25 else dark * F32(rng.uniform(0.1, 0.6)))
    if rng.random() < 0.75:
        body = _circle_of_parts(rng, n, body, r, theta, px, flaw)
    if rng.random() < 0.8:
        ground = drop_shadow(rng, ground, alpha)
    return Scene(over(ground, alpha, body), alpha, (dark + light) / 2)


def _circle_of_parts(
    rng: Rng, n: int, body: Array, r: Array, theta: Array, px: float, flaw: Flaw | None
) -> Array:
    count, at = int(rng.integers(3, 15)), rng.uniform(0.5, 0.8)
    size = min(rng.uniform(0.06, 0.16), 0.36 * 2 * np.pi * at / count)
    turn = F32(rng.uniform(0, 6.3))
    w = (theta - turn) / TURN * F32(count)
    col = np.floor(w + F32(0.5))
    # Around each part: along the circle and outwards.
    angle = (w - col) * TURN / F32(count)
    lu, lv = r * np.sin(angle), r * np.cos(angle) - F32(at)
    wrong = np.zeros((n, n), F32)
    if flaw is not None:
        chosen = (col % count) == int(flaw.rng.integers(count))
        lu, lv, wrong = _odd(flaw, chosen, lu, lv, size)
    part = motif(MOTIFS[int(rng.integers(len(MOTIFS)))], lu, lv, size)
    on = cover(part, 2 * px)
    paint = fill(rng, n, np.zeros((n, n), F32))
    if rng.random() < 0.4:
        paint = np.broadcast_to(tone(rng, "ground") * F32(0.3), body.shape).astype(F32)
    else:
        paint = paint * relief(cover(part, 8 * px), rng.uniform(0, 6.3), 1.0)[..., None]
    body = over(body, on, paint)
    return body if flaw is None else over(body, on * wrong, tone(flaw.rng, *ALL))


def rod(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A lying thing of revolution: pins, plugs, pens, tools, with collars, bands, ridges, print."""
    scale = rng.uniform(0.75, 0.98)
    u, v = pose(n, rng.uniform(-np.pi, np.pi), scale, *rng.uniform(-0.08, 0.08, 2))
    px = 2 / n / scale
    pieces = int(rng.integers(1, 6))
    edges = np.concatenate([[-0.95], np.sort(rng.uniform(-0.8, 0.8, pieces - 1)), [0.95]])
    base = rng.uniform(0.1, 0.34)
    half = np.zeros((n, n), F32)
    picture = np.zeros((n, n, 3), F32)
    main = pick(rng, *ALL)
    gloss_at, gloss = F32(rng.uniform(-0.5, 0.5)), F32(rng.uniform(0.02, 0.35))
    for k in range(pieces):
        low, high = edges[k], edges[k + 1]
        inside = (u >= F32(low)) & (u < F32(high))
        along = (u - F32(low)) / F32(max(high - low, 0.02))
        width = base * rng.uniform(0.6, 1.4)
        taper = F32(rng.choice([0, 0, 0, 0.5, -0.5]) * rng.random())
        piece = F32(width) * (1 - taper * (along - F32(0.5)))
        ridge = np.zeros((n, n), F32)
        if rng.random() < 0.3:
            ridge = np.sin(u * F32(2 * np.pi / rng.uniform(0.04, 0.12)))
            piece = piece + F32(0.012) * ridge
        half = np.where(inside, piece, half)
        dark, light = main if rng.random() < 0.6 else pick(rng, *ALL)
        across = np.clip(v / np.maximum(piece, F32(0.02)), -1, 1)
        round_ = np.sqrt(1 - across**2)
        t = 0.1 + 0.85 * round_ + 0.15 * ridge + F32(0.05) * smooth(rng, n, 4)
        shade = mix(dark * F32(0.8), light, np.clip(t, 0, 1))
        shade = shade + (gloss * np.exp(-(((across - gloss_at) / F32(0.15)) ** 2)))[..., None]
        picture = np.where(inside[..., None], shade, picture)
    ends = rng.integers(3)
    if ends:  # rounded ends
        r = F32(base * rng.uniform(0.4, 1.0))
        over_end = np.maximum(np.abs(u) - (F32(0.95) - r), 0) / r
        half = half * np.sqrt(np.clip(1 - over_end**2, 0, 1))
    d = np.maximum(np.abs(v) - half, np.abs(u) - F32(0.95))
    alpha = cover(d, 2 * px)
    if rng.random() < 0.4:
        picture = over(picture, _print(rng, n, u, v, base) * F32(0.8), tone(rng, *ALL))
    picture = picture + F32(rng.uniform(0.004, 0.015)) * rng.standard_normal((n, n, 1), dtype=F32)
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, picture), alpha, (main[0] + main[1]) / 2)


def _print(rng: Rng, n: int, u: Array, v: Array, size: float) -> Array:
    """Alpha of a print: lines of signs, a bar code, a ring with a sign."""
    at, px = rng.uniform(-0.4, 0.4), 2 / n
    kind = rng.integers(3)
    if kind == 0:
        out = np.zeros((n, n), F32)
        high, wide = size * rng.uniform(0.15, 0.3), rng.uniform(0.035, 0.07)
        for line in range(int(rng.integers(1, 4))):
            w = (u - F32(at)) / F32(wide)
            col = np.floor(w)
            on = (np.abs(col) < rng.integers(2, 6)) & (rng.random(32) > 0.15)[col.astype(int) % 32]
            cut = rng.uniform(-1, 1, (32, 2)).astype(F32)[col.astype(int) % 32]
            x, y = w - col - F32(0.5), (v - F32((line - 0.5) * 2.6 * high)) / F32(high)
            sign = np.maximum(np.abs(x) - F32(0.34), np.abs(y) - 1)
            hollow = np.maximum(
                np.abs(x - cut[..., 0] * 0.2) - F32(0.17), np.abs(y - cut[..., 1]) - F32(0.6)
            )
            out = np.maximum(out, cover(np.maximum(sign, -hollow), 0.3) * on)
        return out
    if kind == 1:
        bars = (rng.random(64) > 0.5)[np.floor((u - F32(at)) / F32(0.02)).astype(int) % 64]
        label = cover(box(u - F32(at), v, rng.uniform(0.1, 0.25), size * 0.5), 2 * px)
        code: Array = bars * label
        return code
    q = np.hypot(u - F32(at), v)
    ring = cover(np.abs(q - F32(size * 0.5)) - F32(size * 0.08), 3 * px)
    return np.maximum(ring, cover(motif("cross", u - F32(at), v, size * 0.25), 3 * px))


def printed_thing(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A smooth body in one or two colours, with a print or a label: boxes, lids, toys, sweets."""
    scale = rng.uniform(0.6, 0.9)
    u, v = pose(n, rng.uniform(-np.pi, np.pi), scale, *rng.uniform(-0.1, 0.1, 2))
    d = outline(rng, u, v)
    alpha = cover(d, 4 / n / scale)
    dark, light = pick(rng, *ALL)
    dome = smoothstep(-d, 0, rng.uniform(0.2, 0.8))
    t = 0.35 + 0.35 * dome + 0.1 * smooth(rng, n, 3)
    body = surface(rng, n, dark, light, t, rng.uniform(0.004, 0.015))
    if rng.random() < 0.5:  # a second colour
        a, b = pick(rng, *ALL)
        edge = u - F32(rng.uniform(-0.4, 0.4)) + F32(rng.choice([0, 0.1])) * smooth(rng, n, 3)
        body = over(body, cover(edge, 4 / n / scale), surface(rng, n, a, b, t, 0.008))
    if rng.random() < 0.4:  # a label
        label = cover(box(u, v, rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.4), 0.04), 4 / n)
        body = over(body, label, tone(rng, *ALL))
    for _ in range(int(rng.integers(1, 3))):
        turned = bool(rng.integers(2))
        mark = _print(rng, n, v if turned else u, u if turned else v, rng.uniform(0.2, 0.5))
        body = over(body, mark * F32(rng.uniform(0.5, 1)), tone(rng, *ALL))
    body = body * relief(dome, rng.uniform(0, 6.3), rng.uniform(0.3, 2.0))[..., None]
    if rng.random() < 0.5:
        spot = np.hypot(u - F32(rng.uniform(-0.5, 0.5)), v - F32(rng.uniform(-0.5, 0.5)))
        body = (
            body
            + (F32(rng.uniform(0.1, 0.4)) * np.exp(-((spot / F32(rng.uniform(0.06, 0.2))) ** 2)))[
                ..., None
            ]
        )
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, body), alpha, (dark + light) / 2)
