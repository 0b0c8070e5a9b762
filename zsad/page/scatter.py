"""Points of a plane as SVG, for pages that need no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zsad.page import html_text

WIDTH, HEIGHT, EDGE, FOOT = 400, 320, 16, 18  # pixels
SIZE = 4.0  # pixels from the middle of a mark to its end

Shape = Literal["dot", "ring", "cross"]


@dataclass(frozen=True)
class Marks:
    """Points [N, 2] that look alike.  ``titles``: shown under the pointer, one for each, or none;
    ``labels``: beside each, or none; ``faint``: drawn thin, below the others."""

    points: NDArray[np.float64]
    colour: str
    shape: Shape = "dot"
    titles: Sequence[str] = ()
    labels: Sequence[str] = ()
    faint: bool = False


def scatter(
    title: str,
    marks: Sequence[Marks],
    shares: tuple[float, float],
    frame: NDArray[np.float64] | None = None,
) -> str:
    """One drawing, both axes to the same scale.

    ``shares``: of the variance along each axis.  ``frame`` [N, 2]: points that have room in it, for
    drawings that are compared; None: those of ``marks``.
    """
    points = np.concatenate([np.zeros((0, 2)), *(m.points for m in marks)])
    points = points if frame is None else frame
    low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.zeros(2))
    room = np.array([WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE - FOOT])
    scale = min(r / d if d > 0 else np.inf for r, d in zip(room, high - low))
    scale = float(scale) if np.isfinite(scale) else 1.0
    middle = (low + high) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{html_text(title)}</title>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - FOOT - 2}" fill="none" '
        'stroke="#8888"/>',
        f'<text x="{EDGE}" y="{HEIGHT - 4}" fill="currentColor">along: {shares[0]:.0%} of the '
        f"variance; up: {shares[1]:.0%}</text>",
    ]
    for group in sorted(marks, key=lambda m: not m.faint):
        offset = (group.points - middle) * scale
        across = WIDTH / 2 + offset[:, 0]
        down = (HEIGHT - FOOT) / 2 - offset[:, 1]
        for i, (x, y) in enumerate(zip(across, down)):
            parts.append(_mark(group, float(x), float(y), group.titles[i] if group.titles else ""))
        parts += _labels(group, across, down)
    return "".join([*parts, "</svg>"])


def _labels(group: Marks, across: NDArray[np.float64], down: NDArray[np.float64]) -> Iterator[str]:
    """The labels beside their points; one text where points coincide."""
    at: dict[tuple[int, int], list[int]] = {}
    for i in range(len(group.labels)):
        at.setdefault((round(across[i] / SIZE), round(down[i] / SIZE)), []).append(i)
    for rows in at.values():
        x, y = float(across[rows[0]]), float(down[rows[0]])
        side, end = (-1, ' text-anchor="end"') if x > WIDTH / 2 else (1, "")
        text = html_text(", ".join(group.labels[i] for i in rows))
        place = f'x="{x + side * (SIZE + 3):.1f}" y="{y + 4:.1f}"'
        yield f'<text {place}{end} fill="currentColor">{text}</text>'


def _mark(group: Marks, x: float, y: float, title: str) -> str:
    own = f"<title>{html_text(title)}</title>" if title else ""
    opacity = ' opacity="0.6"' if group.faint else ""
    size = SIZE / 2 if group.faint else SIZE
    line = f'stroke="{group.colour}" stroke-width="1.6"'
    if group.shape == "cross":
        path = f"M{x - size:.1f} {y - size:.1f}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} "
        return f'<path d="{path}{2 * size}" fill="none" {line}{opacity}>{own}</path>'
    fill = f'fill="{group.colour}"' if group.shape == "dot" else f'fill="none" {line}'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {fill}{opacity}>{own}</circle>'
