"""The released script for VisA (``vis_test.py``): a picture as a left and a right square.

Both squares have the picture's height and overlap; their maps are joined, the overlap averaged, and
the image score is the mean of theirs.  The adapter is a plain linear layer E -> E, fitted to both
squares of an image on the enlarged, joined map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.methods.anovl.adapter import Fitted, Start, fitted
from zsad.methods.anovl.config import Adapter


def joined(left: Tensor, right: Tensor, shift: int) -> Tensor:
    """Join maps [..., H, W] of two squares, of which the right one begins ``shift`` columns to
    the right of the left one: [..., H, W + shift], their mean where both are.

    ``shift`` in 0..W.
    """
    width = left.shape[-1]
    if not 0 <= shift <= width:
        raise ValueError(f"shift {shift} must lie in 0..{width}")
    both = (left[..., shift:] + right[..., : width - shift]) / 2
    return torch.cat([left[..., :shift], both, right[..., width - shift :]], -1)


def in_square(maps: Tensor, shift: int, side: int) -> Tensor:
    """Bring maps [2, h, w] of a picture's squares to the whole picture in a square, [S, S].

    They are enlarged as the script does, joined, and then narrowed to the square in which every
    map is measured here; the script measures the joined map as it is.
    """
    left, right = dense.upsample(maps, side, True)
    whole = joined(left, right, shift)
    return dense.upsample(whole[None], side, False)[0]


def adapt_halves(
    patches: Tensor,
    pair: Tensor,
    grid: tuple[int, int],
    side: int,
    shift: int,
    config: Adapter,
    start: Start,
    moments: dict[str, Any] | None = None,
) -> Fitted:
    """Adapt the patch tokens of one picture's squares.

    ``patches`` [2, L, E], not normalised; ``pair`` [2, E]: unit label embeddings; ``side`` in
    pixels.  A token z becomes (1-m) z + m (W z/|z| + b).  ``start``: W and b [E, E + 1], noises
    [steps, 2L, E].  The loss is that of :func:`zsad.methods.anovl.adapter.adapt`, with the mean
    over the pixels of the joined map, whose cosines are enlarged before the softmax.
    """

    def logs(tokens: Tensor, weights: Tensor) -> Tensor:
        logits = dense.similarity(_mixed(tokens, weights, config.mix), pair, grid)
        left, right = dense.upsample(logits, side, True)
        return joined(left, right, shift).log_softmax(0)  # [2 labels, S, S + shift]

    def loss(weights: Tensor, noise: Tensor) -> Tensor:
        clean = logs(patches, weights[0])
        noisy = logs(patches + noise.view_as(patches), weights[0])
        entropy = -(clean.exp() * clean).sum(0).mean()
        hard = -(noisy[1] + clean[0]).mean()
        return (entropy + config.hard_weight * hard)[None]

    noises = start.noises.to(patches)
    fit = fitted(start.weights.to(patches)[None], loss, noises, config, moments)
    return Fitted(_mixed(patches, fit.weights[0], config.mix), fit.losses, fit.moments)


def _mixed(patches: Tensor, weights: Tensor, mix: float) -> Tensor:
    unit = F.normalize(patches, dim=-1)
    return (1 - mix) * patches + mix * (unit @ weights[:, :-1].T + weights[:, -1])
