"""Methods that predict, calibrate and learn on a device: the values of the CPU, and nothing on the
wrong side.  The device is simulated (:mod:`tests.fake_cuda`); sweeps are in tests/runner."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import zsad
from tests.fake_cuda import simulated
from zsad import registry
from zsad.inference.loaded_method import LoadedMethod

SIZE = 48
OWN = [e for e in registry.select_methods("all") if e.target.startswith("zsad.methods.")]
FAST = {"clip", "kanoclip"}  # the others are slow


def names(trained: bool | None = None) -> list[Any]:
    """Methods as parameters."""
    return [
        e.name if e.name in FAST else pytest.param(e.name, marks=pytest.mark.slow)
        for e in OWN
        if trained in (None, e.trained)
    ]


@pytest.fixture(scope="module")
def load(small_weights: Callable[..., Path]) -> Callable[[str, str], LoadedMethod]:
    """A method with a small backbone, on a device."""
    weights = small_weights(5, vision_layers=6, patch=8, grid=4, text_layers=3)

    def loaded(name: str, device: str) -> LoadedMethod:
        return zsad.load_method(
            name,
            "file",
            weights,
            SIZE,
            device=device,
            precision="fp32",
            untrained=registry.method(name).trained,
            overrides={"grounding": False} if name == "filo" else None,
        )

    return loaded


@cache
def pictures() -> list[NDArray[np.uint8]]:
    """Noise, and noise with a bright square."""
    draw = np.random.default_rng(1)
    found = [draw.integers(90, 130, (56, 64, 3), dtype=np.uint8) for _ in range(4)]
    for i, picture in enumerate(found[2:]):
        picture[10 : 30 + i, 20:40] = 240
    return found


def asked(method: LoadedMethod) -> list[Any]:
    """Scores and maps of the pictures, what speaks for them, and a threshold."""
    references = pictures()[:1] if method.method.config.shots else []
    made = method.predict(pictures(), "bolt", references=references)
    found: list[Any] = [(p.image_score, p.anomaly_map) for p in made]
    if not method.method.stretches:
        found.append(method.calibrate(pictures()[:2], "bolt", references=references).image)
    return found


@pytest.mark.parametrize("name", names())
def test_what_is_predicted_and_calibrated_is_that_of_the_cpu(
    name: str, load: Callable[[str, str], LoadedMethod]
) -> None:
    wanted = asked(load(name, "cpu"))
    with simulated("cuda"):
        found = asked(load(name, "cuda"))
    for mine, its in zip(found, wanted, strict=True):
        if isinstance(its, tuple):
            assert mine[0] == pytest.approx(its[0], abs=1e-5)
            np.testing.assert_allclose(mine[1], its[1], atol=1e-5)
        else:
            assert mine == pytest.approx(its, abs=1e-5)


def test_the_projection_is_inverted_once(
    small_weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that is a decomposition that the host waits for."""
    inverted: list[torch.Size] = []
    whole = torch.linalg.pinv

    def pinv(matrix: Tensor, **options: Any) -> Tensor:
        inverted.append(matrix.shape)
        made: Tensor = whole(matrix, **options)
        return made

    monkeypatch.setattr(torch.linalg, "pinv", pinv)
    weights = small_weights(5, vision_layers=6, patch=8, grid=4, text_layers=3)
    over = {"aligner.space": "width"}
    method = zsad.load_method("alfa", "file", weights, SIZE, device="cpu", overrides=over)
    for _ in range(2):
        method.predict(pictures()[:1], "bolt")
    assert len(inverted) == 1


@cache
def batch() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, SIZE, SIZE, generator=draw)
    masks = torch.zeros(4, SIZE, SIZE)
    masks[2:, 10:30, 12:28] = 1
    return images, masks, torch.tensor([0, 0, 1, 1])


class Learned(NamedTuple):
    """What two steps of a phase leave, in memory of its own: the ``totals`` of both, the
    ``gradients`` of the first by parameter (None: not in the loss), and the ``parameters``."""

    totals: Tensor
    gradients: dict[str, Tensor | None]
    parameters: dict[str, Tensor]


def learned(method: LoadedMethod) -> dict[str, Learned]:
    """Two steps of every phase, by phase; a phase goes on with the parameters of the one before."""
    images, masks, labels = batch()
    references = images.flip(0) if method.method.needs_partners else None
    found = {}
    for phase in method.method.phases():
        torch.manual_seed(3)
        method.method.freeze_all_but(method.method.parameters_of_phase(phase))
        parameters = {n: p for n, p in method.method.named_parameters() if p.requires_grad}
        optimiser = torch.optim.SGD(parameters.values(), lr=0.01)
        totals, gradients = [], []
        for _ in range(2):
            torch.manual_seed(4)
            losses = method.losses(images, masks, labels, "bolt", phase.name, references)
            optimiser.zero_grad()
            losses["total"].backward()
            totals.append(kept(losses["total"]))
            gradients.append(
                {n: None if p.grad is None else kept(p.grad) for n, p in parameters.items()}
            )
            optimiser.step()
        after = {n: kept(p) for n, p in parameters.items()}
        found[phase.name] = Learned(torch.stack(totals), gradients[0], after)
    return found


def kept(values: Tensor) -> Tensor:
    """A copy on the CPU: `cpu()` of what lies there already is the same memory, which the next
    phase writes to."""
    return values.detach().to("cpu", copy=True)


def close(mine: Tensor, its: Tensor, least: float) -> bool:
    """As a whole: attention is computed in another way under gradients, and steps amplify it."""
    return bool((mine - its).norm() <= 1e-3 * its.norm() + least)


@pytest.mark.parametrize("name", names(trained=True))
def test_a_training_step_is_that_of_the_cpu(
    name: str, load: Callable[[str, str], LoadedMethod]
) -> None:
    wanted = learned(load(name, "cpu"))
    with simulated("cuda"):
        found = learned(load(name, "cuda"))
    assert found.keys() == wanted.keys() != set()
    for phase, its in wanted.items():
        mine = found[phase]
        torch.testing.assert_close(mine.totals, its.totals, rtol=1e-3, atol=1e-4)
        assert mine.gradients.keys() == mine.parameters.keys() == its.parameters.keys() != set()
        for key, wanted_gradient in its.gradients.items():
            gradient = mine.gradients[key]
            if gradient is None or wanted_gradient is None:
                assert gradient is wanted_gradient, (phase, key)
            else:
                assert close(gradient, wanted_gradient, 1e-6), (phase, key)
        for key, value in its.parameters.items():
            assert close(mine.parameters[key], value, 1e-4), (phase, key)
