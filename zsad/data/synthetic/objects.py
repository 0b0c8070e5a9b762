"""Makes the named objects: five to train on (screw, pill, cable, circuit board, button), four held
out (capsule, metal nut, bottle, zipper)."""

from __future__ import annotations

import numpy as np

from zsad.data.synthetic.fields import (
    F32,
    Array,
    Rng,
    box,
    cover,
    fractal,
    grid,
    mix,
    over,
    polygon,
    pose,
    smooth,
    smoothstep,
    table,
)
from zsad.data.synthetic.palette import pick, tone
from zsad.data.synthetic.scene import Flaw, Scene, background, drop_shadow, marks, surface


def _place(
    rng: Rng, n: int, low: float, high: float, turn: float = np.pi
) -> tuple[Array, Array, float, float]:
    """Coordinates of an object, its scale, and the length of a pixel in them."""
    scale = float(rng.uniform(low, high))
    cx, cy = rng.uniform(-0.1, 0.1, 2)
    u, v = pose(n, rng.uniform(-turn, turn), scale, cx, cy)
    return u, v, scale, 2 / n / scale


def _tube(across: Array, dark: Array, light: Array, shine: float, side: float = -0.35) -> Array:
    """Colour of a lying cylinder; ``across`` from -1 to 1."""
    body = np.sqrt(np.clip(1 - across**2, 0, 1))
    picture = mix(dark * F32(0.75), light, np.clip(body, 0, 1))
    gloss = np.exp(-(((across - F32(side)) / F32(0.16)) ** 2))
    shaded: Array = picture + F32(shine) * gloss[..., None]
    return shaded


# ----------------------------------------------------------------------------- held out
def capsule(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A two-coloured hard capsule, sometimes printed."""
    u, v, _, px = _place(rng, n, 0.62, 0.8)
    radius = rng.uniform(0.3, 0.4)
    reach = np.maximum(np.abs(u) - F32(1 - radius), 0)
    d = np.hypot(reach, v) - F32(radius)
    alpha = cover(d, 2 * px)
    cap = cover(u - F32(rng.uniform(-0.1, 0.2)), 2 * px)
    across = v / F32(radius)
    shine = rng.uniform(0.1, 0.35)
    names = ("plastic", "tablet")
    left = _tube(across, *pick(rng, *names), shine)
    right = _tube(across, *pick(rng, *names), shine)
    body = mix(right, left, cap)
    seam = np.exp(-((cap - 0.5) ** 2) * 8) * 0.12
    body = body * (1 - seam)[..., None]
    if rng.random() < 0.5:
        ink = marks(rng)
        for k in range(int(rng.integers(2, 5))):
            body = over(
                body, 0.8 * cover(box(u + 0.55 - F32(0.09 * k), v, 0.025, 0.09), 2 * px), ink
            )
    ends = 1 - F32(0.35) * smoothstep(np.abs(u), 0.75, 1.0)
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, body * ends[..., None]), alpha, body[n // 2, n // 2])


def metal_nut(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A hexagon nut seen along its thread.  ``missing part``: a corner of the hexagon is gone."""
    u, v, _, px = _place(rng, n, 0.62, 0.78)
    dark, light = pick(rng, "steel", "steel", "brass")
    r = np.hypot(u, v)
    hexagon = polygon(u, v, 6, 0.88)
    hole = rng.uniform(0.4, 0.52)
    d = np.maximum(np.maximum(hexagon, r - F32(rng.uniform(0.93, 1.0))), F32(hole) - r)
    alpha = cover(d, 2 * px)
    theta = np.arctan2(v, u)
    if flaw is not None:
        a = flaw.rng.integers(6) * np.pi / 3 + np.pi / 6 + flaw.rng.normal(0, 0.1)
        away = F32(np.cos(a)) * u + F32(np.sin(a)) * v - F32(flaw.rng.uniform(0.68, 0.82))
        alpha = alpha * cover(away + 0.03 * fractal(flaw.rng, n, 10, 3), 3 * px)
    turning = table(rng, r, theta / 6.3, 60, 2)
    sheen = np.cos(theta * 2 + F32(rng.uniform(0, 6.3)))
    t = (
        0.5
        + 0.2 * sheen
        + F32(rng.uniform(0.1, 0.35)) * (turning - 0.5)
        + 0.08 * fractal(rng, n, 6, 4)
    )
    chamfer = cover(r - F32(rng.uniform(0.8, 0.88)), 0.03)
    body = surface(rng, n, dark, light, t, 0.012) * (0.78 + 0.22 * chamfer)[..., None]
    thread = cover(np.abs(r - F32(hole + 0.035)) - 0.035, 2 * px) * (0.5 + 0.5 * np.sin(r * 160))
    body = over(body, F32(0.6) * thread, dark * F32(0.4))
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, body), alpha, (dark + light) / 2)


def bottle(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """The mouth of a glass bottle from above.  ``missing part``: a piece of the rim is out."""
    u, v, _, px = _place(rng, n, 0.72, 0.88)
    dark, light = pick(rng, "glass")
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    inner = rng.uniform(0.5, 0.62)
    alpha = cover(r - 1, 2 * px)
    shine = (
        0.5
        + 0.3 * np.sin(theta + F32(rng.uniform(0, 6.3)))
        + 0.2 * np.sin(2 * theta + F32(rng.uniform(0, 6.3)))
    )
    wave = 0.5 + 0.5 * np.cos(
        (r - F32(inner)) / F32(1 - inner) * F32(2 * np.pi * rng.uniform(1.2, 2.2))
    )
    t = 0.1 + 0.55 * wave * shine + 0.05 * smooth(rng, n, 5)
    body = surface(rng, n, dark, light, t, 0.01)
    for at in (inner + 0.04, (1 + inner) / 2 + rng.uniform(-0.05, 0.05), 0.96):
        width = rng.uniform(0.008, 0.022)
        start, span = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 3.0)
        arc = cover(
            np.abs((theta - F32(start) + F32(np.pi)) % F32(2 * np.pi) - F32(np.pi)) - F32(span / 2),
            0.5,
        )
        glint = np.exp(-(((r - F32(at)) / F32(width)) ** 2)) * arc
        body = body + F32(rng.uniform(0.25, 0.55)) * glint[..., None]
    depth = dark * F32(0.5) + F32(0.08) * cover(r - F32(inner * 0.6), 0.3)[..., None] * light
    mouth = cover(r - F32(inner), 3 * px)
    body = over(body, mouth, depth)
    ground = background(rng, n)
    if flaw is not None:
        a = flaw.rng.uniform(0, 2 * np.pi)
        at = flaw.rng.uniform(0.85, 1.0)
        reach = np.hypot(u - F32(at * np.cos(a)), v - F32(at * np.sin(a))) / F32(
            flaw.rng.uniform(0.14, 0.32)
        )
        out = cover(reach - 0.9 + 0.2 * fractal(flaw.rng, n, 10, 3), 0.12)
        broken = mix(ground * F32(0.85), depth, cover(r - F32(0.9), 0.1))
        body = over(body, out, broken)
    ground = drop_shadow(rng, ground, alpha)
    return Scene(over(ground, alpha, body), alpha * (1 - mouth * 0.98), (dark + light) / 2)


def zipper(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A closed zipper on its tape.  ``missing part``: one to three teeth; ``bent``: teeth stand
    askew."""
    u, v, _, px = _place(rng, n, 0.95, 1.25, 0.25)
    if rng.random() < 0.5:
        u, v = v, u
    dark, light = pick(rng, "cloth", "plastic")
    weave = 0.5 + 0.25 * np.sin(v * 130) * np.sin(u * 130) + 0.08 * smooth(rng, n, 4)
    picture = surface(rng, n, dark, light, weave, 0.02)
    edge = cover(np.abs(np.abs(u) - F32(rng.uniform(0.5, 0.62))) - 0.01, 0.02)
    picture = picture * (1 - 0.3 * edge)[..., None]
    steel = pick(rng, "steel", "brass", "plastic")
    pitch = rng.uniform(0.13, 0.2)
    length, inset = rng.uniform(0.2, 0.28), rng.uniform(0.03, 0.07)
    missing: dict[int, set[int]] = {-1: set(), 1: set()}
    turned: dict[int, dict[int, float]] = {-1: {}, 1: {}}
    if flaw is not None:
        reach = max(1, int(0.6 / pitch))
        side, first = int(flaw.rng.choice([-1, 1])), int(flaw.rng.integers(-reach, reach))
        for k in range(int(flaw.rng.integers(1, 4))):
            if flaw.kind == "bent":
                turned[side][first + k] = float(
                    flaw.rng.choice([-1, 1]) * flaw.rng.uniform(0.5, 0.9)
                )
            else:
                missing[side].add(first + k)
    gap = cover(np.abs(u) - F32(length * 0.8), 0.05)
    picture = picture * (1 - F32(0.45) * gap)[..., None]
    for side in (-1, 1):
        w = v / F32(pitch) + (F32(0.5) if side > 0 else 0)
        index = np.floor(w + F32(0.5))
        lu = u * side - F32(length / 2 - inset)
        lv = (w - index) * F32(pitch)
        for k, a in turned[side].items():
            on = index == k
            c, s = F32(np.cos(a)), F32(np.sin(a))
            lu, lv = np.where(on, c * lu + s * lv, lu), np.where(on, c * lv - s * lu, lv)
        d = box(lu, lv, length / 2, pitch * 0.3, pitch * 0.14)
        for k in missing[side]:
            d = np.where(index == k, 1, d)
        body = _tube(lv / F32(pitch * 0.3), *steel, 0.15)
        picture = over(picture, cover(d, 2 * px), body)
    return Scene(picture, np.ones((n, n), F32), (dark + light) / 2)


# ----------------------------------------------------------------------------- to train on
def screw(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A screw lying on its side."""
    u, v, _, px = _place(rng, n, 0.72, 0.88)
    dark, light = pick(rng, "steel", "brass")
    shaft, head = rng.uniform(0.1, 0.16), rng.uniform(0.26, 0.36)
    pitch = rng.uniform(0.06, 0.1)
    tip = smoothstep(u, 0.7, 1.0)
    start = rng.uniform(-0.6, -0.2)
    ridge = smoothstep(u, start, start + 0.03)
    wave = np.sin((u + v * F32(0.35)) / F32(pitch) * F32(2 * np.pi))
    half = (F32(shaft) + F32(0.02) * wave * ridge) * (1 - F32(0.85) * tip)
    d = np.maximum(np.abs(v) - half, np.abs(u + F32(0.02)) - F32(0.98))
    alpha = cover(d, 2 * px)
    cone = np.clip((u + F32(0.98)) / F32(0.22), 0, 1)
    headd = np.maximum(
        np.abs(v) - (F32(head) + F32(shaft - head) * cone), np.abs(u + F32(0.87)) - F32(0.11)
    )
    alpha_head = cover(headd, 2 * px)
    body = _tube(v / np.maximum(half, 0.02), dark, light, 0.2)
    body = body * (1 + F32(0.22) * wave * ridge)[..., None]
    body = over(body, alpha_head, _tube(v / F32(head), dark, light, 0.15))
    total = np.maximum(alpha, alpha_head)
    ground = drop_shadow(rng, background(rng, n), total)
    return Scene(over(ground, total, body), total, (dark + light) / 2)


def pill(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A pressed tablet, round or oblong, with a score line or an imprint."""
    u, v, _, px = _place(rng, n, 0.55, 0.75)
    dark, light = pick(rng, "tablet")
    long = rng.choice([0.0, 0.0, 0.35])
    r = np.hypot(
        np.maximum(np.abs(u) - F32(long), 0), v / F32(rng.uniform(0.62, 0.75) if long else 1)
    )
    d = r - F32(1 - long)
    alpha = cover(d, 2 * px)
    dome = np.sqrt(np.clip(1 - (r / F32(1 - long)) ** 2, 0, 1))
    a = rng.uniform(0, 6.3)
    t = (
        0.35
        + 0.5 * dome
        + 0.2 * (F32(np.cos(a)) * u + F32(np.sin(a)) * v)
        + 0.05 * fractal(rng, n, 8, 4)
    )
    body = surface(rng, n, dark, light, t, 0.012)
    if rng.random() < 0.5:
        body = body * (1 - F32(0.25) * cover(np.abs(u) - 0.02, 0.04))[..., None]
    else:
        for k in range(int(rng.integers(1, 4))):
            s = cover(np.abs(box(u - F32(0.3 * k - 0.3), v, 0.09, 0.16, 0.05)) - 0.015, 0.03)
            body = body * (1 - F32(0.25) * s)[..., None]
    if rng.random() < 0.25:  # a speckled coating belongs to this tablet
        spots = smoothstep(smooth(rng, n, 60), 1.5, 2.0)
        body = over(body, F32(0.5) * spots, tone(rng, "plastic"))
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, body), alpha, light)


def cable(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Cross-section of a cable: sheath, three to four insulated cores, strands.  ``misplaced``: a
    core has slipped from its place."""
    u, v, _, px = _place(rng, n, 0.78, 0.9)
    r = np.hypot(u, v)
    alpha = cover(r - 1, 2 * px)
    dark, light = pick(rng, "plastic")
    body = surface(rng, n, dark, light, 0.5 + 0.15 * smooth(rng, n, 4), 0.015)
    body = body * (1 - F32(0.25) * cover(np.abs(r - 0.95) - 0.03, 0.04))[..., None]
    filler = pick(rng, "tablet", "ground")
    body = over(
        body,
        cover(r - 0.82, 2 * px),
        surface(rng, n, *filler, 0.4 + 0.2 * fractal(rng, n, 20, 3), 0.02),
    )
    count = int(rng.integers(3, 5))
    size = 0.355 if count == 3 else 0.31
    slipped = -1 if flaw is None else int(flaw.rng.integers(count))
    turn = rng.uniform(0, 6.3)
    for k in range(count):
        a = turn + 2 * np.pi * k / count
        away = 0.44
        if k == slipped and flaw is not None:
            away += flaw.rng.uniform(0.07, 0.16)
            a += flaw.rng.choice([-1, 1]) * flaw.rng.uniform(0.1, 0.3)
        lu, lv = u - F32(away * np.cos(a)), v - F32(away * np.sin(a))
        q = np.hypot(lu, lv)
        ring = surface(rng, n, *pick(rng, "plastic"), 0.6 + 0.1 * smooth(rng, n, 6), 0.012)
        body = over(body, cover(q - F32(size), 2 * px), ring)
        copper = pick(rng, "copper")
        strand = rng.uniform(26, 36)
        hexes = (
            np.cos(lu * F32(strand))
            * np.cos((lu * 0.5 + lv * 0.866) * F32(strand))
            * np.cos((lu * 0.5 - lv * 0.866) * F32(strand))
        )
        wire = surface(rng, n, *copper, 0.55 + 0.6 * hexes, 0.03)
        body = over(body, cover(q - F32(size * 0.6), 2 * px), wire)
    ground = drop_shadow(rng, background(rng, n), alpha)
    return Scene(over(ground, alpha, body), alpha, light)


def circuit_board(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Part of a board: traces, vias, chips, resistors.  ``misplaced``: one part sits askew."""
    u, v = pose(n, float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.05), 1.0)
    px = 2 / n
    dark, light = pick(rng, "board")
    picture = surface(
        rng, n, dark, dark * F32(0.6) + light * F32(0.4), 0.5 + 0.2 * smooth(rng, n, 3), 0.012
    )
    pitch = rng.uniform(0.11, 0.18)
    lane = np.floor(v / F32(pitch))
    lookup = rng.random((64, 3), dtype=F32)
    pick_lane = lookup[lane.astype(int) % 64]
    shifted = v / F32(pitch) - lane - F32(0.5) + 0.18 * np.sign(u - (pick_lane[..., 1] - 0.5))
    on = (pick_lane[..., 0] < 0.7).astype(F32)
    picture = over(picture, on * cover(np.abs(shifted) - 0.14, 2 * px / pitch), light)
    gold = pick(rng, "brass", "steel")
    for _ in range(int(rng.integers(4, 9))):
        cx, cy = rng.uniform(-0.9, 0.9, 2)
        q = np.hypot(u - F32(cx), v - F32(cy))
        picture = over(picture, cover(q - 0.045, 2 * px), gold[1])
        picture = over(picture, cover(q - 0.018, 2 * px), dark * F32(0.5))
    slots = [(x, y) for x in (-0.62, 0.0, 0.62) for y in (-0.62, 0.0, 0.62)]
    order = rng.permutation(len(slots))[: int(rng.integers(4, 8))]
    astray = -1 if flaw is None else int(flaw.rng.integers(len(order)))
    for k, slot in enumerate(order):
        chip = rng.random() < 0.4
        turn = float(rng.choice([0.0, np.pi / 2]))
        cx, cy = np.array(slots[slot]) + rng.uniform(-0.06, 0.06, 2)
        a, b = (
            (rng.uniform(0.16, 0.24), rng.uniform(0.12, 0.18))
            if chip
            else (rng.uniform(0.1, 0.15), 0.06)
        )
        top = (
            tone(rng, "plastic")
            if not chip and rng.random() < 0.4
            else np.array([0.14, 0.14, 0.15], F32)
        )
        if k == astray and flaw is not None:
            turn += flaw.rng.choice([-1, 1]) * flaw.rng.uniform(0.25, 0.7)
            cx, cy = np.array([cx, cy]) + flaw.rng.uniform(-0.06, 0.06, 2)
        c, s = F32(np.cos(turn)), F32(np.sin(turn))
        lu, lv = c * (u - F32(cx)) + s * (v - F32(cy)), c * (v - F32(cy)) - s * (u - F32(cx))
        if chip:
            comb = cover(np.abs(lu / F32(0.055) - np.floor(lu / F32(0.055)) - F32(0.5)) - 0.25, 0.2)
            legs = cover(box(lu, lv, a * 0.92, b + 0.045), 2 * px) * comb
            picture = over(picture, legs, gold[1])
        else:
            picture = over(picture, cover(box(lu, lv, a, b * 0.95), 2 * px), gold[1])
        d = box(lu, lv, a if chip else a * 0.68, b, 0.01)
        shade = 1 + F32(0.6) * np.exp(-((d / F32(0.012)) ** 2)) * np.sign(-lv)
        picture = over(picture, cover(d, 2 * px), top * shade[..., None])
        if chip:
            dot = cover(np.hypot(lu + F32(a * 0.7), lv + F32(b * 0.6)) - 0.015, 2 * px)
            picture = over(picture, F32(0.6) * dot, np.array([0.7, 0.7, 0.7], F32))
    return Scene(picture, np.ones((n, n), F32), light)


def button(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """A sewing button with two or four eyes."""
    u, v, _, px = _place(rng, n, 0.6, 0.8)
    dark, light = pick(rng, "plastic", "wood", "tablet")
    r = np.hypot(u, v)
    eyes = int(rng.choice([2, 4]))
    hole = np.full((n, n), 9.0, F32)
    for k in range(eyes):
        a = 2 * np.pi * k / eyes
        hole = np.minimum(
            hole, np.hypot(u - F32(0.2 * np.cos(a)), v - F32(0.2 * np.sin(a))) - F32(0.08)
        )
    whole = cover(r - 1, 2 * px)
    alpha = whole * cover(-hole, 2 * px)
    a = rng.uniform(0, 6.3)
    slope = (F32(np.cos(a)) * u + F32(np.sin(a)) * v) / np.maximum(r, 0.05)
    rim = np.exp(-(((r - F32(0.82)) / F32(0.1)) ** 2))
    dish = np.exp(-(((r - F32(0.62)) / F32(0.07)) ** 2))
    t = 0.6 + 0.3 * slope * (rim - dish) + 0.08 * fractal(rng, n, 5, 4)
    body = surface(rng, n, dark, light, t, 0.01)
    ground = drop_shadow(rng, background(rng, n), whole)
    return Scene(over(ground, alpha, body), alpha, light)


def wire_bundle(rng: Rng, n: int, flaw: Flaw | None = None) -> Scene:
    """Insulated wires side by side.  ``bent`` is not built in; overlays apply."""
    u, _ = pose(n, rng.uniform(0, np.pi), 1.0)
    count = int(rng.integers(4, 9))
    w = u / F32(2.4) * count + F32(0.15) * smooth(rng, n, 3) + 20
    index = np.floor(w)
    across = (w - index - F32(0.5)) * 2
    colours = np.stack([tone(rng, "plastic", "tablet") for _ in range(6)])
    base = colours[index.astype(int) % 6]
    shade = 0.35 + 0.75 * np.sqrt(np.clip(1 - across**2, 0, 1))
    gloss = np.exp(-(((across + 0.35) / F32(0.15)) ** 2)) * rng.uniform(0.05, 0.25)
    picture = base * shade[..., None].astype(F32) + gloss[..., None].astype(F32)
    x, _ = grid(n)
    return Scene(picture.astype(F32), np.ones_like(x), base[n // 2, n // 2])
