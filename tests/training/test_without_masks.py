"""Training on pictures that are labelled as a whole: who learns from them, and who refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_engine import assert_same, state_of
from zsad import registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.errors import DataError
from zsad.training import fit
from zsad.training.provision import new_method
from zsad.types import Sample


def parts(state: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k.startswith(part)}


def train(
    name: str,
    samples: list[Sample],
    index: DatasetIndex,
    backbone: Backbone,
    settings: Settings,
    folder: Path,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    entry = registry.method(name)
    values = {"train": {"epochs": 1, "batch_size": 4}}
    if name == "coop":
        values["train"]["warmup_epochs"] = 0
    method = new_method(entry, entry.resolve(("test", values)), backbone.info, 0)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    (result,) = fit(
        [method], index, backbone, settings=settings, seed=0, out_dir=folder, samples=samples
    )
    return before, state_of(result.checkpoint), result.history[0]


def test_without_any_mask_the_detection_adapters_learn_alone(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    bare = [replace(s, mask=None) for s in index.samples]
    before, after, row = train("mvfa", bare, index, backbone, settings, tmp_path)
    seg, det = "seg_adapters.", "det_adapters."
    assert_same(parts(before, seg), parts(after, seg))
    assert not torch.equal(
        after["det_adapters.0.fc1.0.weight"], before["det_adapters.0.fc1.0.weight"]
    )
    assert not torch.equal(
        after["det_adapters.0.fc2.0.weight"], before["det_adapters.0.fc2.0.weight"]
    )
    assert row["total"] == pytest.approx(row["image"])
    assert "focal" not in row
    assert len(parts(after, det)) == 8


def test_where_some_are_known_the_others_have_image_terms_alone(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    anomalous = [s.uid for s in index.samples if s.label]
    some = [replace(s, mask=None) if s.uid == anomalous[0] else s for s in index.samples]
    before, after, row = train("mvfa", some, index, backbone, settings, tmp_path)
    assert row["focal"] > 0
    name = "seg_adapters.0.fc1.0.weight"
    assert not torch.equal(after[name], before[name])


def test_a_classifier_needs_none_and_a_segmenter_says_so(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> None:
    bare = [replace(s, mask=None) for s in index.samples]
    before, after, _ = train("coop", bare, index, backbone, settings, tmp_path)
    assert not torch.equal(before["prompts.ctx"], after["prompts.ctx"])
    with pytest.raises(DataError, match=r"have no mask .*; train on a dataset with pixel masks"):
        train("aprilgan", bare, index, backbone, settings, tmp_path)
