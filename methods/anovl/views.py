"""The views of an image that released AnoVL averages its image score over."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFTS = (0.2, 0.1)  # of half the image
GREY = (0.299, 0.587, 0.114)


def further_views(images: Tensor) -> Iterator[Tensor]:
    """Yield the 21 views of images [B, 3, S, S] beside the images themselves, each [B, 3, S, S].

    Eight rotations by up to 45 degrees, eight shifts, the mirror image, the image in grey, three
    quarter turns.  What lies beyond the border is reflected.  All are taken of the preprocessed
    tensor, as released (the order there is shuffled, which changes no mean).
    """
    for k in (-4, -3, -2, -1, 1, 2, 3, 4):
        angle = k * math.pi / 16
        cos, sin = math.cos(angle), math.sin(angle)
        yield _moved(images, [[cos, -sin, 0.0], [sin, cos, 0.0]])
    for s in SHIFTS:
        for across, down in ((s, s), (-s, s), (-s, -s), (s, -s)):
            yield _moved(images, [[1.0, 0.0, across], [0.0, 1.0, down]])
    yield images.flip(-1)
    weights = images.new_tensor(GREY).view(3, 1, 1)
    yield (images * weights).sum(1, keepdim=True).expand_as(images)
    for turns in (1, 2, 3):  # anti-clockwise
        yield images.rot90(turns, (-2, -1))


def _moved(images: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor(matrix, dtype=images.dtype, device=images.device)
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=True)
    return F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
