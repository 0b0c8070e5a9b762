"""The losses of Bayes-PFL, in its own forms."""

from __future__ import annotations

from torch import Tensor

OFFSET = 1e-8  # of logarithms and counts in the focal loss
SMOOTH = 1e-5  # of Dice


def focal(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of -(1 - p_t)^2 log p_t over the anomalous pixels of the batch, plus that
    over the normal ones; probability and mask [B, H, W]."""
    true = probability * mask + (1 - probability) * (1 - mask)
    each = -((1 - true) ** 2) * (true + OFFSET).log()
    anomalous = (each * mask).sum() / (mask.sum() + OFFSET)
    return anomalous + (each * (1 - mask)).sum() / ((1 - mask).sum() + OFFSET)


def dice(probability: Tensor, mask: Tensor) -> Tensor:
    """Return the Dice loss of the anomalous channel over the whole batch."""
    overlap = 2 * (probability * mask).sum() + SMOOTH
    return 1 - overlap / (probability.sum() + mask.sum() + SMOOTH)


def orthogonality(text: Tensor) -> Tensor:
    """Return the mean over images and all T^2 entries of the squared off-diagonal cosines of unit
    rows [B, T, E]."""
    cosines = text @ text.mT
    off = cosines - cosines.diagonal(dim1=-2, dim2=-1).diag_embed()
    return (off**2).mean()
