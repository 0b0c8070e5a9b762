"""Takes the photograph: light, nuisances, camera.  Normal and anomalous pictures alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsad.data.synthetic.fields import F32, Array, Rng, blur, cover, grid, smooth, stroke

NUISANCES = ("shadow", "reflection", "dust", "handling mark")


def nuisances(rng: Rng, picture: Array) -> tuple[Array, list[str]]:
    """Add what a careless eye takes for a defect; return what was added."""
    n = picture.shape[0]
    x, y = grid(n)
    added: list[str] = []
    a = rng.uniform(0, 2 * np.pi)
    across = F32(np.cos(a)) * x + F32(np.sin(a)) * y
    if rng.random() < 0.3:  # the soft edge of something that stands before the lamp
        width = rng.uniform(0.2, 0.6)
        shade = cover(across - F32(rng.uniform(-0.7, 0.7)) + F32(0.05) * smooth(rng, n, 3), width)
        picture = picture * (1 - F32(rng.uniform(0.1, 0.28)) * shade)[..., None]
        added.append("shadow")
    if rng.random() < 0.25:  # a window mirrored in the surface
        along = F32(np.sin(a)) * x - F32(np.cos(a)) * y
        glow = np.exp(
            -(((across - F32(rng.uniform(-0.8, 0.8))) / F32(rng.uniform(0.15, 0.4))) ** 2)
            - ((along - F32(rng.uniform(-0.8, 0.8))) / F32(rng.uniform(0.4, 1.2))) ** 2
        )
        picture = picture + (F32(rng.uniform(0.05, 0.16)) * glow)[..., None]
        added.append("reflection")
    if rng.random() < 0.3:  # fine dust
        k = int(rng.integers(2, 9))
        rows, cols = rng.integers(1, n - 1, k), rng.integers(1, n - 1, k)
        change = rng.uniform(-0.12, 0.12, k).astype(F32)
        picture = picture.copy()
        for dr, dc, weight in ((0, 0, 1.0), (0, 1, 0.5), (1, 0, 0.5)):
            picture[rows + dr, cols + dc] += (change * F32(weight))[:, None]
        added.append("dust")
    if rng.random() < 0.2:  # a faint wipe of a cloth
        points = (
            np.array([[0, 0], [1, 1]]) * rng.uniform(-0.6, 0.6, 2) + rng.uniform(0.2, 0.8, 2)
        ) * n
        wipe = blur(stroke(n, points.astype(F32), n * rng.uniform(0.06, 0.14)), n / 24)
        picture = picture * (1 + F32(rng.uniform(-0.05, 0.05)) * wipe)[..., None]
        added.append("handling mark")
    return picture, added


def photograph(rng: Rng, picture: Array) -> NDArray[np.uint8]:
    """Return uint8 [n, n, 3]: fall-off of light, white balance, exposure, defocus, sensor noise."""
    n = picture.shape[0]
    x, y = grid(n)
    a = rng.uniform(0, 2 * np.pi)
    light: Array = 1 + F32(rng.uniform(0, 0.16)) * (F32(np.cos(a)) * x + F32(np.sin(a)) * y)
    light = light - F32(rng.uniform(0, 0.1)) * (x * x + y * y)
    gain = F32(rng.uniform(0.85, 1.12)) * (1 + rng.normal(0, 0.02, 3).astype(F32))
    picture = picture * np.moveaxis(light * gain[:, None, None], 0, 2)
    if rng.random() < 0.5:
        picture = blur(picture, float(rng.choice([0.5, 0.75])) * n / 224)
    noise = rng.standard_normal((n, n), dtype=F32) * F32(rng.uniform(0.003, 0.02))
    picture = picture + noise[..., None]
    seen = (np.clip(picture, 0, 1) * F32(255) + F32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(seen)
