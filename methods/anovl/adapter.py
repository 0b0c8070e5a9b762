"""AnoVL's test-time adapter: a linear layer fitted to one image, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.methods.anovl.config import Adapter


class Start(NamedTuple):
    """The random numbers of one image: the layer that it begins with, ``weights`` [T, E + 1] with
    the bias in the last column, and the ``noises`` [steps, L, E] added to its patch tokens."""

    weights: Tensor
    noises: Tensor


Draw = Callable[[int, int, int, int], Start]
"""(number of the image in its category, T, L, E) -> its random numbers."""


def seeded(config: Adapter) -> Draw:
    """Return random numbers that follow from ``adapter.seed``; where the optimiser's state is
    ``kept``, also from the number of the image: others begin with the same ones."""

    def draw(image: int, prompts: int, length: int, width: int) -> Start:
        seed = config.seed if config.state == "fresh" else config.seed * 1_000_003 + image + 1
        generator = torch.Generator().manual_seed(seed)
        bound = width**-0.5  # the usual initialisation of a linear layer
        weights = (2 * torch.rand(prompts, width + 1, generator=generator) - 1) * bound
        noises = torch.randn(config.steps, length, width, generator=generator) * config.noise
        return Start(weights, noises)

    return draw


@dataclass(frozen=True)
class Carried:
    """What goes from image to image of a category: how many there were, AdamW's state."""

    images: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)


class Fitted(NamedTuple):
    """Adapted ``patches`` [B, L, E], the ``losses`` [B, steps] and AdamW's ``moments``."""

    patches: Tensor
    losses: Tensor
    moments: dict[str, Tensor]


def adapt(
    patches: Tensor,
    prompts: Tensor,
    pair: Tensor,
    config: Adapter,
    start: Start | None = None,
    moments: dict[str, Any] | None = None,
) -> Fitted:
    """Adapt patch tokens.

    ``patches`` [B, L, E], not normalised; ``prompts`` [B, T, E]: unit prompt embeddings; ``pair``
    [B, 2, E]: unit label embeddings.  A token z becomes (1-m) z + m tanh(W z/|z| + b) T, where T
    are the prompts and W, b are fitted to each image: its tokens should be sure of a label, and
    the same tokens with noise should be anomalous while the clean ones are normal.  Images do not
    meet: they have weights of their own, begin with the same ones and see the same noise.
    ``moments``: AdamW's state to go on with.
    """
    batch, length, width = patches.shape
    start = start or seeded(config)(0, prompts.shape[1], length, width)

    def loss(weights: Tensor, noise: Tensor) -> Tensor:
        clean = _probabilities(_mixed(patches, weights, prompts, config.mix), pair)
        noisy = _probabilities(_mixed(patches + noise, weights, prompts, config.mix), pair)
        entropy = -(clean * clean.log()).sum(-1).mean(1)
        hard = -(noisy[..., 1].log() + clean[..., 0].log()).mean(1)
        return entropy + config.hard_weight * hard

    first = start.weights.to(patches).expand(batch, -1, -1)
    fit = fitted(first, loss, start.noises.to(patches), config, moments)
    return Fitted(_mixed(patches, fit.weights, prompts, config.mix), fit.losses, fit.moments)


class Fit(NamedTuple):
    """Fitted ``weights``, the ``losses`` [B, steps] and AdamW's ``moments``."""

    weights: Tensor
    losses: Tensor
    moments: dict[str, Tensor]


def fitted(
    first: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    noises: Tensor,
    config: Adapter,
    moments: dict[str, Any] | None,
) -> Fit:
    """Fit weights that begin with ``first``, one step for each of ``noises``: ``loss`` of weights
    and noise is a value [B] for each of B images.  ``moments``: AdamW's state to go on with."""
    losses: list[Tensor] = []
    with torch.enable_grad():
        weights = first.clone().requires_grad_()
        optimizer = torch.optim.AdamW([weights], lr=config.lr)
        if moments:
            optimizer.state[weights] = {name: value.clone() for name, value in moments.items()}
        for noise in noises:
            values = loss(weights, noise)
            optimizer.zero_grad()
            values.sum().backward()
            optimizer.step()
            losses.append(values.detach())
    none = first.new_zeros(len(first), 0)
    together = torch.stack(losses, 1) if losses else none
    return Fit(weights.detach(), together, dict(optimizer.state[weights]))


def adapt_in_turn(
    keys: Sequence[str],
    carried: dict[str, Carried],
    adapt_one: Callable[[int, int, dict[str, Tensor]], Fitted],
) -> tuple[Fitted, dict[str, Carried]]:
    """Adapt one image after the other, each with AdamW's state as the last image of its category
    (``keys``, one per image) left it: released behaviour.

    ``adapt_one`` gets the row of an image, its number in its category and AdamW's state.  Returns
    the result for all images (its moments are empty), and what goes on to later ones.
    """
    carried, found = dict(carried), []
    for row, key in enumerate(keys):
        before = carried.get(key, Carried())
        one = adapt_one(row, before.images, before.moments)
        carried[key] = Carried(before.images + 1, one.moments)
        found.append(one)
    together = Fitted(
        torch.cat([f.patches for f in found]), torch.cat([f.losses for f in found]), {}
    )
    return together, carried


def _mixed(patches: Tensor, weights: Tensor, prompts: Tensor, mix: float) -> Tensor:
    unit = F.normalize(patches, dim=-1)
    affinity = torch.tanh(unit @ weights[..., :-1].mT + weights[:, None, :, -1])  # [B, L, T]
    return (1 - mix) * patches + mix * (affinity @ prompts)


def _probabilities(patches: Tensor, pair: Tensor) -> Tensor:
    """Softmax of plain cosines, as released: [B, L, 2]."""
    return (F.normalize(patches, dim=-1) @ pair.mT).softmax(-1)
