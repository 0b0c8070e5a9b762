"""CoOp's released training: every picture is cropped and mirrored anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad import registry
from zsad.backbones import Backbone
from zsad.config import BackboneSettings, DataSettings, Settings
from zsad.data.index import load_index
from zsad.method import new_method
from zsad.training import fit
from zsad.training.identity import training_config


@pytest.mark.parametrize("name", ["coop", "cocoop"])
def test_the_released_preset_sees_other_parts_in_every_epoch(
    small_backbone: Callable[..., Backbone], tmp_path: Path, name: str
) -> None:
    backbone = small_backbone(38, size=56, vision_layers=4, text_layers=1)
    write_miniature("mvtec", tmp_path / "data")
    index = load_index("mvtec", tmp_path / "data")
    samples = [s for s in index.samples if s.split == "test" and s.category == "bottle"]
    entry = registry.method(name)
    few = {"n_ctx": 4, "ctx_init": "", "train": {"epochs": 2, "batch_size": 3}}
    config = entry.resolve(("test", {"preset": "released", **few}))
    method = new_method(entry, config, backbone.info, 0)
    assert method.adds_anew
    (phase,) = method.phases()
    epochs = [method.epoch_samples(samples, phase, e, 0) for e in (0, 1, 0)]
    assert epochs[0] == epochs[2]  # a training that goes on reads the same
    first, second = ({s.image for s in e or ()} for e in epochs[:2])
    assert len(first) == len(second) == len(samples)
    assert not first & second
    assert sorted(s.label for s in epochs[0] or ()) == sorted(s.label for s in samples)
    (result,) = fit(
        [method],
        index,
        backbone,
        settings=Settings(
            backbone=BackboneSettings(name="file", image_size=56), data=DataSettings(workers=0)
        ),
        seed=0,
        out_dir=tmp_path / "out",
        samples=samples,
    )
    assert len(result.history) == 2
    assert backbone.counters.images == 3 * len(samples)  # once as they are, then every epoch


def test_it_enters_the_identity_where_it_is_on() -> None:
    entry = registry.method("coop")
    plain = training_config(entry.resolve())
    assert "augment" not in plain["train"]
    released = training_config(entry.resolve(("test", {"preset": "released"})))
    assert released["train"]["augment"] == "crop_flip"
