"""AnoVL's test-time adapter: a linear layer fitted to one image, without labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.methods.anovl.config import Adapter


def adapt(patches: Tensor, prompts: Tensor, pair: Tensor, config: Adapter) -> Tensor:
    """Return adapted patch tokens [B, L, E].

    ``patches`` [B, L, E], not normalised; ``prompts`` [B, T, E]: unit prompt embeddings; ``pair``
    [B, 2, E]: unit label embeddings.  A token z becomes (1-m) z + m tanh(W z/|z| + b) T, where T
    are the prompts and W, b are fitted to each image: its tokens should be sure of a label, and
    the same tokens with noise should be anomalous while the clean ones are normal.  Images do not
    meet: they have weights of their own, begin with the same ones and see the same noise.
    """
    batch, length, width = patches.shape
    count = prompts.shape[1]
    generator = torch.Generator().manual_seed(config.seed)
    bound = width**-0.5  # the usual initialisation of a linear layer
    first = (2 * torch.rand(count, width + 1, generator=generator) - 1) * bound
    noises = torch.randn(config.steps, length, width, generator=generator) * config.noise
    with torch.enable_grad():
        weights = first.to(patches).expand(batch, -1, -1).clone().requires_grad_()
        optimizer = torch.optim.AdamW([weights], lr=config.lr)
        for noise in noises.to(patches):
            clean = _probabilities(_mixed(patches, weights, prompts, config.mix), pair)
            noisy = _probabilities(_mixed(patches + noise, weights, prompts, config.mix), pair)
            entropy = -(clean * clean.log()).sum(-1).mean(1)
            hard = -(noisy[..., 1].log() + clean[..., 0].log()).mean(1)
            optimizer.zero_grad()
            (entropy + config.hard_weight * hard).sum().backward()
            optimizer.step()
    return _mixed(patches, weights.detach(), prompts, config.mix)


def _mixed(patches: Tensor, weights: Tensor, prompts: Tensor, mix: float) -> Tensor:
    unit = F.normalize(patches, dim=-1)
    affinity = torch.tanh(unit @ weights[..., :-1].mT + weights[:, None, :, -1])  # [B, L, T]
    return (1 - mix) * patches + mix * (affinity @ prompts)


def _probabilities(patches: Tensor, pair: Tensor) -> Tensor:
    """Softmax of plain cosines, as released: [B, L, 2]."""
    return (F.normalize(patches, dim=-1) @ pair.mT).softmax(-1)
