"""Learning works: thirty steps on two generated categories help on a third, by way of the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import backbones, maps, registry
from zsad.backbones import Backbone
from zsad.config import DataSettings, RunSettings, Settings
from zsad.data.index import DatasetIndex, load_index
from zsad.data.loader import batches
from zsad.data.transforms import Preprocess
from zsad.features import FeatureStore
from zsad.metrics import CategoryMetrics
from zsad.training import FitOptions, fit
from zsad.training.provision import new_method
from zsad.types import Sample, ScoreContext

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (files("zsad.backbones.tiny") / "weights.safetensors").is_file(),
        reason="the weights of zsad-tiny are not there",
    ),
]
TRAIN, TEST = ("carpet", "button"), "metal_nut"
MARGIN = 0.03


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return backbones.load("zsad-tiny")


@pytest.fixture(scope="module")
def synthetic() -> DatasetIndex:
    return load_index("synthetic")


@torch.no_grad()
def pixel_auroc(method: Any, backbone: Backbone, index: DatasetIndex) -> float:
    """Pixel AUROC on the held-out category."""
    category = index.categories[TEST]
    samples = [s for s in index.samples if s.category == TEST and s.split == "test"]
    text = backbone.text_encoder(method.feature_request().variant)
    prepared = method.prepare_text([category], text)
    metrics = CategoryMetrics(mode="exact")
    for batch in batches(samples, Preprocess.for_backbone(backbone.info)):
        features = backbone.encode_image(batch.images, method.feature_request())
        context = ScoreContext([category] * len(batch), prepared, text_encoder=text)
        scores = method.score(features, context)
        built = maps.build_maps(scores, method.map_spec(), backbone.info.image_size)
        metrics.update(built.final, batch.masks, scores.image, batch.labels)
    value = metrics.compute().metrics["pixel_auroc"]
    assert value is not None
    return value


@pytest.mark.parametrize("name", ["anomalyclip", "faprompt"])
def test_it_learns_from_the_masks(
    name: str, tiny: Backbone, synthetic: DatasetIndex, tmp_path: Path
) -> None:
    entry = registry.method(name)
    config = entry.resolve(("test", {"train": {"epochs": 3}, "deep": {"depth": 3}}))
    frozen = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    seen = [s for s in synthetic.samples if s.category in TRAIN and s.split == "train"]
    steps: list[int] = []

    def train(samples: Sequence[Sample], out: str) -> Any:
        method = new_method(entry, config, tiny.info, 0)
        with FeatureStore(host_bytes=1 << 30) as store:
            fit(
                [method],
                synthetic,
                tiny,
                settings=Settings(data=DataSettings(workers=0), run=RunSettings()),
                seed=0,
                out_dir=tmp_path / out,
                samples=samples,
                store=store,
                options=FitOptions(logger="none", progress=lambda p: steps.append(p.step)),
            )
        return method

    before = pixel_auroc(new_method(entry, config, tiny.info, 0), tiny, synthetic)
    after = pixel_auroc(train(seen, "true"), tiny, synthetic)
    assert 20 <= len(steps) <= 40
    assert after > before + MARGIN
    marked = [s for s in seen if s.label]
    moved = dict(zip((s.uid for s in marked), (s.mask for s in marked[1:] + marked[:1])))
    wrong = [replace(s, mask=moved[s.uid]) if s.label else s for s in seen]
    assert pixel_auroc(train(wrong, "moved"), tiny, synthetic) < after - MARGIN
    for key, value in tiny.model.state_dict().items():
        assert torch.equal(value, frozen[key]), key
