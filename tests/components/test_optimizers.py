"""Adam over the parameters of a phase: known answers."""

from __future__ import annotations

import pytest
import torch

from zsad.components.optimizers import adam


def test_every_parameter_takes_a_first_step_of_the_rate() -> None:
    """Adam's first step is the rate against the sign of the gradient, however large that is."""
    named = {n: torch.nn.Parameter(torch.tensor([1.0, -2.0])) for n in ("prompts.a", "query.b")}
    optimizer = adam(0.25, (0.5, 0.999))(named)
    named["prompts.a"].grad = torch.tensor([3.0, -0.01])
    named["query.b"].grad = torch.tensor([-700.0, 5.0])
    optimizer.step()
    assert named["prompts.a"].tolist() == pytest.approx([0.75, -1.75], abs=1e-5)
    assert named["query.b"].tolist() == pytest.approx([1.25, -2.25], abs=1e-5)


def test_the_first_beta_says_how_long_a_gradient_is_remembered() -> None:
    moved = []
    for first in (0.0, 0.9):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = adam(1.0, (first, 0.999))({"p": parameter})
        for gradient in (1.0, 0.0):
            parameter.grad = torch.tensor([gradient])
            optimizer.step()
        moved.append(parameter.item())
    # The second gradient is 0: without a memory nothing is added to the first step of -1.
    assert moved[0] == pytest.approx(-1.0, abs=1e-5)
    # m = 0.09 / (1 - 0.81), v = 0.000999 / (1 - 0.998001)
    assert moved[1] == pytest.approx(-1 - (0.09 / 0.19) / (0.000999 / 0.001999) ** 0.5, abs=1e-4)
