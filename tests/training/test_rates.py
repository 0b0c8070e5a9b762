"""Learning rates by epoch: known values, torch's own cosine, and what the engine makes of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.method import CosineRate, Method, new_method
from zsad.training import FitOptions, fit
from zsad.training.callback import TrainingStep

TRAIN = {"epochs": 4, "batch_size": 10, "lr": 0.01, "warmup_epochs": 1, "warmup_lr": 0.0}


def coop(backbone: Backbone, **train: Any) -> Method:
    entry = registry.method("coop")
    config = entry.resolve(("test", {"n_ctx": 2, "train": TRAIN | train}))
    return new_method(entry, config, backbone.info, 0)


def test_known_rates() -> None:
    found = [CosineRate(4, 1, 0.005)(e) for e in range(4)]
    assert found == pytest.approx([0.005, 1.0, (1 + 0.5**0.5) / 2, 0.5])
    assert [CosineRate(2)(e) for e in range(2)] == [1.0, 0.5]
    assert [CosineRate(3, 2, 0.1)(e) for e in range(3)] == [0.1, 0.1, 1.0]


def test_after_the_warm_up_it_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.002)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50.0)
    rate = CosineRate(50, 1, 0.005)
    for epoch in range(1, 50):
        assert 0.002 * rate(epoch) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        reference.step()


def test_the_coop_family_anneals_as_its_code_does(backbone: Backbone) -> None:
    for name, epochs in (("coop", 50), ("cocoop", 10)):
        entry = registry.method(name)
        (phase,) = entry.load()(entry.resolve(), backbone.info).phases()
        assert phase.rate is not None
        rates = [0.002 * phase.rate(e) for e in range(epochs)]
        assert rates[:2] == pytest.approx([1e-5, 0.002])
        last = 0.001 * (1 + math.cos(math.pi * (epochs - 2) / epochs))
        assert rates[-1] == pytest.approx(last)
        assert rates[1:] == sorted(rates[1:], reverse=True)
    assert coop(backbone, schedule="constant").phases()[0].rate is None


def test_the_engine_sets_the_rate_of_every_epoch(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    method = coop(backbone)
    before = method.state_dict()["prompts.ctx"].clone()
    moved: dict[int, bool] = {}

    def look(progress: TrainingStep) -> None:
        moved[progress.epoch] = not torch.equal(method.state_dict()["prompts.ctx"], before)

    (result,) = fit(
        [method],
        index,
        backbone,
        settings=settings,
        seed=0,
        out_dir=tmp_path,
        options=FitOptions(progress=look),
    )
    rates = [row["rate"] for row in result.history]
    assert rates == pytest.approx([0.0, 0.01, 0.005 * (1 + 0.5**0.5), 0.005])
    assert moved == {1: False, 2: True, 3: True, 4: True}  # a warm-up at rate zero moves nothing


@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_training_goes_on_at_the_same_rate(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path, stop: int
) -> None:
    def run(folder: str, options: FitOptions) -> Any:
        arguments: dict[str, Any] = {"settings": settings, "seed": 0, "out_dir": tmp_path / folder}
        return fit([coop(backbone)], index, backbone, options=options, **arguments)[0]

    def interrupt(progress: TrainingStep) -> None:
        if (progress.epoch - 1) * progress.steps + progress.step == stop:
            raise RuntimeError("interrupted")

    whole = run("whole", FitOptions())
    with pytest.raises(RuntimeError, match="interrupted"):
        run("cut", FitOptions(save_steps=1, progress=interrupt))
    resumed = run("cut", FitOptions())
    assert [r["rate"] for r in resumed.history] == [r["rate"] for r in whole.history]
    states = [checkpoints.load_any(r.checkpoint).state["prompts.ctx"] for r in (whole, resumed)]
    assert torch.equal(*states)


def test_the_engine_sets_the_rate_of_every_step(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    """Steps are counted over all epochs; the factor goes on top of that of the epoch."""
    method = coop(backbone)
    (phase,) = method.phases()
    asked: list[tuple[int, int]] = []

    def ramp(step: int, steps: int) -> float:
        asked.append((step, steps))
        return 0.0 if step < 3 else 1.0

    chosen = replace(phase, epochs=2, rate=lambda epoch: 0.5, step_rate=ramp)
    method.phases = lambda: [chosen]  # type: ignore[method-assign]
    before = method.state_dict()["prompts.ctx"].clone()
    moved: list[bool] = []

    def look(progress: TrainingStep) -> None:
        moved.append(not torch.equal(method.state_dict()["prompts.ctx"], before))

    (result,) = fit(
        [method],
        index,
        backbone,
        settings=settings,
        seed=0,
        out_dir=tmp_path,
        options=FitOptions(progress=look),
    )
    assert asked == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert moved == [False, False, False, True]
    assert [row["rate"] for row in result.history] == [0.0, 0.005]
