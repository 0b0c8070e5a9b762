"""Where the noise of the latents comes from: functions of seeds and names, on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from zsad.methods.bayespfl.config import Sampling

LABELS = ("normal", "abnormal")


class TrainingDraws(NamedTuple):
    """Noise of a training step, and the bank's entry that is scored: ``context`` [B, W],
    ``states`` [2, W]."""

    context: Tensor
    states: Tensor
    entry: int


@dataclass(frozen=True)
class Draws:
    """The noise that ``sampling`` asks for, for latents of ``width`` values."""

    sampling: Sampling
    width: int

    def states(self) -> Tensor:
        """Return the noise of both labels' latents: [2, R, W], the same for all images."""
        return torch.stack([self._drawn(self.sampling.count, label) for label in LABELS])

    def contexts(self, names: Sequence[str], places: Sequence[int]) -> Tensor:
        """Return the noise of the images' latents: [B, R, W].

        ``names``: of the images; ``places``: of each in the order of its category, for
        ``noise=released`` alone.
        """
        kind, count = self.sampling.noise, self.sampling.count
        if kind == "per_image":
            return torch.stack([self._drawn(count, "context", name) for name in names])
        if kind == "released":
            return torch.stack([self._drawn(count, "context", str(place)) for place in places])
        return self._drawn(count, "context").expand(len(names), -1, -1)

    def in_training(self, batch: int, bank: int) -> TrainingDraws:
        """Draw for a step, from the generator that the training engine seeds."""
        entry = int(torch.randint(bank, ()))
        context, states = torch.randn(batch, self.width), torch.randn(2, self.width)
        return TrainingDraws(context, states, entry)

    def _drawn(self, count: int, *names: str) -> Tensor:
        if self.sampling.noise == "mean":
            return torch.zeros(count, self.width)
        text = "/".join((str(self.sampling.seed), *names))
        return _noise(text, count, self.width)


@lru_cache(maxsize=64)
def _noise(text: str, count: int, width: int) -> Tensor:
    """Draw [count, width] by the name ``text``; kept, so that a recording of the method takes it
    as a constant."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
