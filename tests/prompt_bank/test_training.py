"""KAnoCLIP trained by the engine gets knowledge, and resumes to the same bits."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.training.conftest import SIZE, make_dataset
from zsad import backbones, checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import BackboneSettings, DataSettings, RunSettings, Settings
from zsad.data.index import load_index
from zsad.method import Method, new_method
from zsad.training import FitOptions, fit
from zsad.training.callback import TrainingStep


@pytest.fixture
def backbone(tmp_path: Path, recipe: ModuleType) -> Backbone:
    dims = recipe.ClipDims(
        vision_width=64, vision_layers=6, patch=8, grid=4, embed=48, text_width=64, text_layers=3
    )
    torch.save(recipe.clip_state(dims, 5), tmp_path / "clip.pt")
    return backbones.load("file", weights=tmp_path / "clip.pt", image_size=SIZE)


def test_knowledge_reaches_training_and_survives_a_kill(backbone: Backbone, tmp_path: Path) -> None:
    index = load_index(f"folder:{make_dataset(tmp_path / 'swatches')}")
    settings = Settings(
        backbone=BackboneSettings(name="file", image_size=SIZE),
        data=DataSettings(workers=0),
        run=RunSettings(feature_cache_gb=0.05),
    )
    entry = registry.method("kanoclip")
    small = {
        "train": {"epochs": 2, "batch_size": 6},
        "bicmci": {"width": 32, "heads": 4, "groups": 2},
        "knpl": {"kb": {"vqa": "mask"}},
    }

    def make(seed: int = 0, **overrides: Any) -> Method:
        config = entry.resolve(("test", small), ("more", overrides))
        return new_method(entry, config, backbone.info, seed)

    def run(method: Method, name: str, **values: Any) -> dict[str, torch.Tensor]:
        (result,) = fit(
            [method], index, backbone, settings=settings, seed=1, out_dir=tmp_path / name, **values
        )
        found = checkpoints.load_any(result.checkpoint)
        assert found.meta is not None
        facts[name] = found.meta.facts
        return dict(found.state)

    facts: dict[str, dict[str, Any]] = {}
    first = make()
    whole = run(first, "whole")
    assert set(first.knowledge) == {"felt", "panel"}
    assert 0 <= facts["whole"]["knowledge_active_share"] <= 1
    assert first.facts == facts["whole"]
    (path,) = (tmp_path / "whole").glob("*.safetensors")
    loaded, _ = checkpoints.load_into(entry, path, backbone.info)
    assert loaded.facts == facts["whole"]

    seen = 0

    def interrupt(progress: TrainingStep) -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(make(), "cut", options=FitOptions(save_steps=1, progress=interrupt))
    resumed = run(make(seed=9), "cut")
    assert facts["cut"] == facts["whole"]
    assert whole.keys() == resumed.keys()
    for key in whole:
        assert torch.equal(whole[key], resumed[key]), key

    off = make(knpl={"kb": {"vqa": "off"}})
    run(off, "off")
    assert facts["off"] == {}
    assert off.knowledge == {}  # neither captions nor a bank entry for these names
