"""How trained parameters are stepped, as a :class:`zsad.method.TrainPhase` asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch


def adam(
    lr: float, betas: tuple[float, float]
) -> Callable[[Mapping[str, torch.nn.Parameter]], torch.optim.Optimizer]:
    """Return what builds Adam over all parameters of a phase, with one learning rate > 0.

    ``betas``: how much of the means of the gradient and of its square is kept, in [0, 1).
    """
    return lambda named: torch.optim.Adam(list(named.values()), lr=lr, betas=betas)
