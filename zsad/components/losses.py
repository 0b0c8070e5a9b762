"""Losses of the trained methods, on probabilities unless a name says otherwise.

Shapes: masks [B, H, W] or [B, 1, H, W] in {0, 1}, 1 = anomalous.  Every function returns a
scalar.  All follow the released AnomalyCLIP, FAPrompt and FiLo code, which share them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-5  # clamp of the targets and offset inside the logarithm of the released focal loss


def focal(probabilities: Tensor, mask: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of two-channel probabilities [B, 2, H, W], mean over pixels.

    Where the channels add up to 1, the anomalous one [B, H, W] is enough.
    mean -(1 - p_t)^gamma log p_t, with p_t the probability of the true channel.  The released
    code softens the one-hot target to [1e-5, 1 - 1e-5] and adds 1e-5 to p_t; so do we.
    """
    target = _plane(mask).to(probabilities)
    soft = target.clamp(SMOOTH, 1 - SMOOTH)
    if probabilities.dim() == 3:
        normal, anomalous = 1 - probabilities, probabilities
    else:
        normal, anomalous = probabilities.unbind(1)
    true = normal * (1 - soft) + anomalous * soft + SMOOTH
    # p_t + 1e-5 may exceed 1 by 1e-5: harmless for the even powers in use, as released
    return (-((1 - true) ** gamma) * true.log()).mean()


def dice(probability: Tensor, mask: Tensor, squared: bool = False, per_row: bool = False) -> Tensor:
    """Return 1 - mean_b (2 sum(p g) + 1) / (sum p + sum g + 1) for p [B, H, W] and mask g.

    ``squared`` sums p^2 and g^2 in the denominator (FiLo Eq. 8 as printed).  ``per_row`` takes
    every image row as a sample of its own: released FiLo's loss at batch 1, where the batch axis
    is squeezed away.
    """
    truth = _plane(mask).to(probability)
    p = _plane(probability)
    start = 2 if per_row else 1
    p, truth = p.flatten(start), truth.flatten(start)
    overlap = (p * truth).sum(-1)
    total = (p**2).sum(-1) + (truth**2).sum(-1) if squared else p.sum(-1) + truth.sum(-1)
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def binary_focal(probability: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of scores [B] that are probabilities (FAPrompt Eq. 10)."""
    cross = F.binary_cross_entropy(probability, labels.to(probability), reduction="none")
    return ((1 - torch.exp(-cross)) ** gamma * cross).mean()


def binary_focal_on_logits(score: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of scores [B] passed through a sigmoid first.

    Released FAPrompt feeds it a score that is a probability already, so that the sigmoid
    squeezes it into [0.5, 0.73]; kept for its ``released`` preset.
    """
    cross = F.binary_cross_entropy_with_logits(score, labels.to(score), reduction="none")
    return ((1 - torch.exp(-cross)) ** gamma * cross).mean()


def segmentation(
    anomalous: Tensor, mask: Tensor, squared: bool = False, per_row: bool = False
) -> Tensor:
    """Return focal + Dice of the anomalous map + Dice of the normal map, for p_a [B, H, W].

    The pixel loss that FiLo (Eq. 6-8), FAPrompt (Eq. 6, 7) and AnomalyCLIP apply to a map.
    """
    p = _plane(anomalous)
    truth = _plane(mask).to(p)
    return (
        focal(p, truth)
        + dice(p, truth, squared=squared, per_row=per_row)
        + dice(1 - p, 1 - truth, squared=squared, per_row=per_row)
    )


def _plane(x: Tensor) -> Tensor:
    """Drop a channel axis of one: [B, 1, H, W] or [B, H, W] -> [B, H, W]."""
    return x[:, 0] if x.dim() == 4 else x


def pixel_terms(probability: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return focal and the two Dice losses of pair probabilities [B, 2, H, W]."""
    return {
        "focal": focal(probability, masks),
        "dice_abnormal": dice(probability[:, 1], masks),
        "dice_normal": dice(probability[:, 0], 1 - masks),
    }
