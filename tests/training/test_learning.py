"""Learning works: thirty steps on two categories help on a third, by way of the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.data.loader import batches
from zsad.data.transforms import Preprocess
from zsad.method import new_method
from zsad.metrics import CategoryMetrics
from zsad.training import FitOptions, fit
from zsad.training.feature_store import FeatureStore
from zsad.types import Sample, ScoreContext

STEPS = 30
MARGIN = 0.15


@torch.no_grad()
def pixel_auroc(method: Any, backbone: Backbone, index: DatasetIndex) -> float:
    """Pixel AUROC on an unseen category."""
    (category,) = index.categories.values()
    text = backbone.text_encoder(method.feature_request().variant)
    prepared = method.prepare_text([category], text)
    metrics = CategoryMetrics(mode="exact")
    for batch in batches(index.samples, Preprocess.for_backbone(backbone.info)):
        features = backbone.encode_image(batch.images, method.feature_request())
        context = ScoreContext([category] * len(batch), prepared, text_encoder=text)
        scores = method.score(features, context)
        built = maps.build_maps(scores, method.map_spec(), backbone.info.image_size)
        metrics.update(built.final, batch.masks, scores.image, batch.labels)
    value = metrics.compute().metrics["pixel_auroc"]
    assert value is not None
    return value


THIRTY = {"epochs": 3, "batch_size": 8}  # of eighty pictures
OVERRIDES: dict[str, dict[str, Any]] = {
    "anomalyclip": {"train": THIRTY, "deep": {"depth": 3}},
    "faprompt": {"train": THIRTY, "deep": {"depth": 3}},
    # Their heads begin at random: thirty steps want a larger rate than thousands do.
    "filo": {
        "train": {**THIRTY, "adapter_epochs": 0},
        "lr": {"heads": 1e-3},
        "prompt": {"positions": "none"},
        "grounding": "none",
    },
    "kanoclip": {"train": {**THIRTY, "lr_modules": 1e-3}},
}


@pytest.mark.parametrize(
    "name",  # one with learned prompts alone and one that reads the picture: fast ones of each kind
    [
        "anomalyclip",
        "faprompt",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("filo", "kanoclip")),
    ],
)
def test_it_learns_from_the_masks(
    name: str,
    backbone: Backbone,
    settings: Settings,
    swatches: DatasetIndex,
    unseen: DatasetIndex,
    tmp_path: Path,
) -> None:
    entry = registry.method(name)
    config = entry.resolve(("test", {**OVERRIDES[name], "post": {"sigma": 1.0}}))
    frozen = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    steps: list[int] = []

    def train(samples: Sequence[Sample], out: str) -> Any:
        method = new_method(entry, config, backbone.info, 0)
        with FeatureStore() as store:
            fit(
                [method],
                swatches,
                backbone,
                settings=settings,
                seed=0,
                out_dir=tmp_path / out,
                samples=samples,
                store=store,
                options=FitOptions(logger="none", progress=lambda p: steps.append(p.step)),
            )
        return method

    before = pixel_auroc(new_method(entry, config, backbone.info, 0), backbone, unseen)
    after = pixel_auroc(train(swatches.samples, "true"), backbone, unseen)
    assert len(steps) == STEPS
    # every picture gets the label and mask of another, half of them of the other kind
    moved = swatches.samples[10:] + swatches.samples[:10]
    wrong = [replace(s, label=o.label, mask=o.mask) for s, o in zip(swatches.samples, moved)]
    agree = sum(s.label == w.label for s, w in zip(swatches.samples, wrong))
    assert agree == len(wrong) // 2
    shuffled = pixel_auroc(train(wrong, "moved"), backbone, unseen)
    assert after > before + MARGIN
    assert shuffled < after - MARGIN
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, frozen[key]), key
