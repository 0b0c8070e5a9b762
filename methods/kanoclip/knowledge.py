"""The knowledge-driven loss of KAnoCLIP (Eqs. 2 and 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def knowledge_mean(general: Tensor, specific: Tensor, weighting: str = "per_prompt") -> Tensor:
    """Unit mean [E] of the texts' unit features: general [N, E], image-specific [M, E].

    ``per_prompt`` is Eq. 3.  ``per_source`` averages the two sources' means: with tens of
    images per category the image-specific texts outweigh the others otherwise.
    Raises ``ValueError`` when both are empty.
    """
    parts = [F.normalize(x.float(), dim=-1) for x in (general, specific) if len(x)]
    if not parts:
        raise ValueError("no knowledge text")
    if weighting == "per_source":
        mean = torch.stack([p.mean(0) for p in parts]).mean(0)
    else:
        mean = torch.cat(parts).mean(0)
    return F.normalize(mean, dim=-1)


def knowledge_loss(
    knowledge: Tensor, normal: Tensor, abnormal: Tensor, margin: float = 0.0, form: str = "hinge"
) -> Tensor:
    """Eq. 2 per category [C]: max(0, |k - a| - |k - n| + margin), for unit vectors [C, E].

    Zero, with zero gradient, where the abnormal prompts are nearer to the knowledge than the
    normal ones by ``margin``.  ``kgcoop`` is |k - a|^2 without a hinge.
    """
    near: Tensor = (knowledge - abnormal).norm(dim=-1)
    if form == "kgcoop":
        return near**2
    return F.relu(near - (knowledge - normal).norm(dim=-1) + margin)
