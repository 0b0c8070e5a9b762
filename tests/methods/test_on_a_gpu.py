"""Methods that predict, calibrate and learn on a device: the values of the CPU, and nothing on the
wrong side.  The device is simulated (:mod:`tests.fake_cuda`); sweeps are in tests/runner."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

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


def learned(method: LoadedMethod) -> dict[str, list[Tensor]]:
    """The loss terms of two steps of every phase, and the parameters that they leave, by phase."""
    images, masks, labels = batch()
    references = images.flip(0) if method.method.needs_partners else None
    found = {}
    for phase in method.method.phases():
        torch.manual_seed(3)
        method.method.freeze_all_but(method.method.parameters_of_phase(phase))
        parameters = [p for p in method.method.parameters() if p.requires_grad]
        optimiser = torch.optim.SGD(parameters, lr=0.01)
        terms = []
        for _ in range(2):
            torch.manual_seed(4)
            losses = method.losses(images, masks, labels, "bolt", phase.name, references)
            optimiser.zero_grad()
            losses["total"].backward()
            optimiser.step()
            terms.append(losses["total"].detach().cpu())
        found[phase.name] = [torch.stack(terms), *(p.detach().cpu() for p in parameters)]
    return found


@pytest.mark.parametrize("name", names(trained=True))
def test_a_training_step_is_that_of_the_cpu(
    name: str, load: Callable[[str, str], LoadedMethod]
) -> None:
    wanted = learned(load(name, "cpu"))
    with simulated("cuda"):
        found = learned(load(name, "cuda"))
    assert found.keys() == wanted.keys() != set()
    for phase, values in wanted.items():
        torch.testing.assert_close(found[phase][0], values[0], rtol=1e-3, atol=1e-4)
        for mine, its in zip(found[phase][1:], values[1:], strict=True):
            # as a whole: attention is computed in another way under gradients, and steps amplify it
            assert (mine - its).norm() <= 1e-3 * its.norm() + 1e-4
