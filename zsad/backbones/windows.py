"""Window passes (WinCLIP, ALFA): the class embedding of every k x k window of patches.

A window is a token subset {class token, its k*k patches} gathered from the embedded image with
the original positions.  Attention is the only operation across tokens, so encoding the subset is
exactly the full pass with all other keys masked out, at the cost of 1 + k*k tokens.  What comes
before the first attention is the same in every window, and made once for an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zsad.backbones.block_plan import WINDOW_KINDS
from zsad.on_device import constant
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder


def window_indices(grid: tuple[int, int], k: int) -> Tensor:
    """Return the token positions of every window, [M, 1+k*k]: the class token (0), then the
    patches.  Stride 1, raster order; M = (h-k+1) * (w-k+1)."""
    h, w = grid
    if not 1 <= k <= min(h, w):
        raise ValueError(f"window of {k} patches does not fit a grid of {h} x {w}")
    patches = 1 + torch.arange(h * w).reshape(h, w)
    windows = patches.unfold(0, k, 1).unfold(1, k, 1).reshape(-1, k * k)
    return torch.cat([torch.zeros(len(windows), 1, dtype=torch.long), windows], 1)


def prepare_windows(grid: tuple[int, int], taps: Iterable[Tap], device: torch.device) -> None:
    """Make what :func:`encode_windows` keeps, so that a recording holds it as a constant and leaves
    nothing of its own behind."""
    for k in {tap.layer for tap in taps if tap.kind in WINDOW_KINDS}:
        constant(window_indices, grid, k, device=device)


def count_windows(grid: tuple[int, int], taps: Iterable[Tap]) -> int:
    """Return how many windows of one image :func:`encode_windows` encodes for these taps."""
    passes = {(t.layer, t.kind == "window_pixels") for t in taps if t.kind in WINDOW_KINDS}
    return sum((grid[0] - k + 1) * (grid[1] - k + 1) for k, _ in passes)


def encode_windows(
    encoder: ImageEncoder, pre: Tensor, grid: tuple[int, int], taps: Iterable[Tap]
) -> dict[Tap, Tensor]:
    """Encode all windows of ``pre`` (embedded images [B, 1+L, D]) for window taps.

    Taps of the same window size and input share their passes.  Returns [B, M, E] for each tap,
    for the values inside the windows [B, M, 1+k*k, E or D]; not normalised.
    """
    groups: dict[tuple[int, bool], list[Tap]] = {}
    for tap in sorted(taps):
        groups.setdefault((tap.layer, tap.kind == "window_pixels"), []).append(tap)
    out: dict[Tap, Tensor] = {}
    shared = encoder.depth > 1 and any(not pixels for _, pixels in groups)
    entered = encoder.enter(pre) if shared else None  # a last block is not run for all rows
    for (k, pixels), members in groups.items():
        index = constant(window_indices, grid, k, device=pre.device)
        wanted = {tap: _inner(tap, encoder.depth) for tap in members}
        length = pre.shape[1] if pixels else index.shape[1]
        total = len(pre) * len(index)
        parts: dict[Tap, list[Tensor]] = {tap: [] for tap in members}
        for rows in _chunks(total, max(1, encoder.window_tokens // length), pre.device):
            image, window = rows // len(index), rows % len(index)
            if pixels:
                sequences = _zeroed(pre[image], index[window], encoder.positions(grid))
                found = encoder.run(sequences, wanted.values())
            else:
                places = image[:, None] * pre.shape[1] + index[window]
                own = entered.picked(places) if entered else pre.flatten(0, 1)[places]
                found = encoder.run(own, wanted.values())
            for tap, inner in wanted.items():
                parts[tap].append(found[inner])
        for tap in members:
            out[tap] = torch.cat(parts[tap]).unflatten(0, (len(pre), len(index)))
    return out


def _inner(tap: Tap, depth: int) -> Tap:
    """Return the tap that a window's own pass delivers for a window tap."""
    kind = WINDOW_KINDS[tap.kind]
    return Tap(kind) if kind == "cls" else Tap(kind, depth)


def _zeroed(pre: Tensor, kept: Tensor, positions: Tensor) -> Tensor:
    """Zero the patches outside each window: their tokens hold only the position then (the patch
    embedding has no bias)."""
    inside = torch.zeros(pre.shape[:2], dtype=torch.bool, device=pre.device)
    inside.scatter_(1, kept, True)
    return torch.where(inside[..., None], pre, positions)


def _chunks(total: int, size: int, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, total, size):
        yield torch.arange(start, min(start + size, total), device=device)
