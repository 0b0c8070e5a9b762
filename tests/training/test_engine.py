"""The training engine: one encoder pass, the same result however it is run, resume after a kill."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.config.method_config import MethodConfig
from zsad.data.index import DatasetIndex
from zsad.errors import CellError, DataError, RequestError
from zsad.method import Method, TrainPhase, new_method
from zsad.training import FitOptions, fit
from zsad.training.callback import TrainingStep
from zsad.training.feature_store import FeatureStore
from zsad.training.schedules import cut, derive, share, shuffled

SMALL = {"train": {"epochs": 2, "batch_size": 6}, "deep": {"depth": 3}, "cap": {"n_prompts": 3}}


def make(name: str, backbone: Backbone, seed: int = 0, **overrides: Any) -> Method:
    entry = registry.method(name)
    values = {k: v for k, v in SMALL.items() if k != "cap" or name == "faprompt"} | overrides
    return new_method(entry, entry.resolve(("test", values)), backbone.info, seed)


def state_of(path: Path) -> dict[str, Tensor]:
    return dict(checkpoints.load_any(path).state)


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_images_are_encoded_once_and_the_backbone_stays(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    frozen = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    method = make("faprompt", backbone)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    (result,) = fit([method], index, backbone, settings=settings, seed=0, out_dir=tmp_path)
    assert backbone.counters.images == len(index.samples) == 20
    assert method.auxiliary == (index.spec.name,)  # whatever its own begin_training does
    assert_same(frozen, dict(backbone.model.state_dict()))
    assert [row["epoch"] for row in result.history] == [1, 2]
    assert result.history[1]["total"] < result.history[0]["total"]
    changed = state_of(result.checkpoint)
    assert all(not torch.equal(before[k], changed[k]) for k in before)


def test_methods_trained_together_equal_those_trained_alone(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    names = ("faprompt", "anomalyclip")
    alone = [
        fit(
            [make(n, backbone)],
            index,
            backbone,
            settings=settings,
            seed=0,
            out_dir=tmp_path / "alone",
        )[0]
        for n in names
    ]
    encoded = backbone.counters.images
    together = fit(
        [make(n, backbone) for n in names],
        index,
        backbone,
        settings=settings,
        seed=0,
        out_dir=tmp_path / "together",
    )
    assert backbone.counters.images - encoded == len(index.samples)  # once for both
    for one, other in zip(alone, together):
        assert one.method == other.method
        assert_same(state_of(one.checkpoint), state_of(other.checkpoint))


def test_a_store_without_room_gives_the_same_result(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    """What is not kept is encoded again, to the same bits (groups of one image)."""
    with FeatureStore(host_bytes=0) as none, FeatureStore(host_bytes=150_000) as some:
        results = [
            fit(
                [make("anomalyclip", backbone)],
                index,
                backbone,
                settings=settings,
                seed=0,
                out_dir=tmp_path / name,
                store=store,
            )[0]
            for name, store in (("none", none), ("some", some))
        ]
        assert none.used == 0
        assert 0 < some.used <= 150_000
    assert_same(state_of(results[0].checkpoint), state_of(results[1].checkpoint))


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_interrupted_in_an_epoch_it_goes_on_to_the_same_bits(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path, stop: int
) -> None:
    whole = fit(
        [make("faprompt", backbone)],
        index,
        backbone,
        settings=settings,
        seed=3,
        out_dir=tmp_path / "whole",
    )[0]
    seen = 0

    def interrupt(progress: TrainingStep) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise RuntimeError("interrupted")

    arguments: dict[str, Any] = {"settings": settings, "seed": 3, "out_dir": tmp_path / "cut"}
    options = FitOptions(save_steps=1, progress=interrupt)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit([make("faprompt", backbone)], index, backbone, options=options, **arguments)
    assert (tmp_path / "cut" / "faprompt" / "resume.pt").is_file()
    resumed = fit([make("faprompt", backbone, seed=99)], index, backbone, **arguments)[0]
    assert_same(state_of(whole.checkpoint), state_of(resumed.checkpoint))
    drop = ("seconds",)
    assert [{k: v for k, v in r.items() if k not in drop} for r in whole.history] == [
        {k: v for k, v in r.items() if k not in drop} for r in resumed.history
    ]
    assert not (tmp_path / "cut" / "faprompt" / "resume.pt").exists()


def test_ctrl_c_leaves_a_state_to_resume_and_no_checkpoint(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    def interrupt(progress: TrainingStep) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    options = FitOptions(progress=interrupt)
    arguments: dict[str, Any] = {"settings": settings, "seed": 0, "out_dir": tmp_path}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit([make("anomalyclip", backbone)], index, backbone, options=options, **arguments)
    assert (tmp_path / "anomalyclip" / "resume.pt").is_file()
    assert not (tmp_path / "anomalyclip.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before


SCRIPT = """
import os, signal, sys
from pathlib import Path
from zsad import backbones, registry
from zsad.config import BackboneSettings, DataSettings, RunSettings, Settings
from zsad.data.index import load_index
from zsad.training import FitOptions, fit
from zsad.method import new_method

weights, data, out, stop = sys.argv[1:5]
backbone = backbones.load("file", weights=weights, image_size=48)
entry = registry.method("anomalyclip")
config = entry.resolve(("test", {"train": {"epochs": 2, "batch_size": 6}, "deep": {"depth": 3}}))
steps = 0
def progress(_):
    global steps
    steps += 1
    if steps == int(stop):
        os.kill(os.getpid(), signal.SIGKILL)
fit(
    [new_method(entry, config, backbone.info, 0)],
    load_index(f"folder:{data}"),
    backbone,
    settings=Settings(
        backbone=BackboneSettings(name="file", image_size=48),
        data=DataSettings(workers=0),
        run=RunSettings(feature_cache_gb=0.05),
    ),
    seed=0,
    out_dir=Path(out),
    options=FitOptions(save_steps=1, progress=progress),
)
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums round differently with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.fault
@pytest.mark.slow
def test_killed_in_an_epoch_it_goes_on_to_the_same_bits(
    dataset: Path,
    weights: Path,
    index: DatasetIndex,
    backbone: Backbone,
    settings: Settings,
    tmp_path: Path,
    one_thread: None,
) -> None:
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(weights), str(dataset), "cut", "3"]
    killed = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "anomalyclip.safetensors").exists()

    def train(out: str) -> tuple[Path, list[int]]:
        steps: list[int] = []
        (result,) = fit(
            [make("anomalyclip", backbone)],
            index,
            backbone,
            settings=settings,
            seed=0,
            out_dir=tmp_path / out,
            options=FitOptions(progress=lambda p: steps.append(p.step)),
        )
        return result.checkpoint, steps

    resumed, steps = train("cut")
    assert steps == [4, 1, 2, 3, 4]  # the first three were not done again
    whole, steps = train("whole")
    assert len(steps) == 8
    assert_same(state_of(whole), state_of(resumed))


def test_what_is_finished_is_not_trained_again(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"settings": settings, "seed": 0, "out_dir": tmp_path}
    (first,) = fit([make("anomalyclip", backbone)], index, backbone, **arguments)
    assert not first.reused
    (again,) = fit([make("anomalyclip", backbone)], index, backbone, **arguments)
    assert again.reused
    arguments["seed"] = 1
    (other,) = fit([make("anomalyclip", backbone, seed=1)], index, backbone, **arguments)
    assert not other.reused  # another seed is another training


def test_history_goes_to_a_csv_file(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    options = FitOptions(logger="csv")
    (result,) = fit(
        [make("anomalyclip", backbone)],
        index,
        backbone,
        settings=settings,
        seed=0,
        out_dir=tmp_path,
        options=options,
    )
    with open(tmp_path / "anomalyclip" / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["prompts/total"]) for r in rows] == pytest.approx(
        [r["total"] for r in result.history]
    )


def test_checkpoint_says_what_it_is(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    (result,) = fit(
        [make("faprompt", backbone)], index, backbone, settings=settings, seed=7, out_dir=tmp_path
    )
    meta = checkpoints.read_meta(result.checkpoint)
    assert meta is not None
    assert (meta.method, meta.seed, meta.epochs, meta.preset) == ("faprompt", 7, 2, "default")
    assert meta.backbone_sha256 == backbone.info.weights_sha256 != ""
    assert ("vv_proj", 6, backbone.info.vv_start(19)) in meta.taps
    assert meta.trained_on is not None
    assert meta.trained_on.dataset == "swatches"
    assert meta.trained_on.fingerprint == index.fingerprint
    assert len(meta.trained_on.uids) == 20


class Diverging(Method[MethodConfig, None]):
    """A method whose loss stops being a number."""

    name = "diverging"

    def __init__(self, config: Any, backbone: Any) -> None:
        super().__init__(config, backbone)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def feature_request(self) -> Any:
        from zsad.types import FeatureRequest, Tap

        return FeatureRequest.of(Tap("cls"))

    def prepare_text(self, categories: Any, text: Any) -> dict[str, None]:
        return {}

    def score(self, features: Any, context: Any) -> Any:
        raise AssertionError("never scored")

    def map_spec(self) -> Any:
        raise AssertionError("never mapped")

    def losses(self, features: Any, batch: Any, context: Any) -> dict[str, Tensor]:
        return {"total": (self.weight / 0).sum()}

    def phases(self) -> list[TrainPhase]:
        def optimizer(named: Any) -> Any:
            return torch.optim.SGD(named.values(), lr=1.0)

        return [TrainPhase("only", 1, 4, ("weight",), optimizer)]


def test_a_loss_that_is_not_a_number_ends_with_a_reason(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    entry = registry.method("anomalyclip")
    method = Diverging(entry.resolve(), backbone.info)
    with pytest.raises(CellError, match="diverging: the loss is not a number in epoch 1, step 1"):
        fit([method], index, backbone, settings=settings, seed=0, out_dir=tmp_path)


def test_requests_that_cannot_be_met(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    from dataclasses import replace

    arguments: dict[str, Any] = {"settings": settings, "seed": 0, "out_dir": tmp_path}
    free = registry.method("clip")
    with pytest.raises(RequestError, match="training-free"):
        fit([free.load()(free.resolve(), backbone.info)], index, backbone, **arguments)
    bare = [replace(s, mask=None) for s in index.samples]
    with pytest.raises(DataError, match="10 anomalous training images have no mask"):
        fit([make("faprompt", backbone)], index, backbone, samples=bare, **arguments)
    broken = [replace(index.samples[0], image=str(tmp_path / "gone.png")), *index.samples[1:]]
    with pytest.raises(DataError, match=r"gone\.png"):
        fit([make("faprompt", backbone)], index, backbone, samples=broken, **arguments)


def test_schedule_depends_on_names_and_seed_alone(index: DatasetIndex) -> None:
    first = [s.uid for s in shuffled(index.samples, 0, "main", 0)]
    assert sorted(first) == sorted(s.uid for s in index.samples)
    backwards = list(reversed(index.samples))
    assert first == [s.uid for s in shuffled(backwards, 0, "main", 0)]
    for seed, phase, epoch in ((1, "main", 0), (0, "other", 0), (0, "main", 1)):
        assert first != [s.uid for s in shuffled(index.samples, seed, phase, epoch)]
    assert derive(0, "a", "b") != derive(0, "ab") != derive(1, "ab")
    batches = cut(list(range(10)), 3)
    assert [len(b) for b in batches] == [3, 3, 3, 1]
    assert share(batches, 0, 2) == [[0, 1, 2], [6, 7, 8]]
    assert share(batches, 1, 2) == [[3, 4, 5], [9]]
    assert len(share(list(range(7)), 0, 3)) == len(share(list(range(7)), 2, 3)) == 2
