"""With every optimisation off, maps are the same to 1e-4 and metrics to four digits.

Off means: an encoder pass and batches of one image for every method on its own, all 77 positions
of every prompt, FiLo's convolutions one by one, and every stage's map built apart.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zsad import backbones, registry
from zsad import maps as dense
from zsad.backbones import Backbone
from zsad.backbones.text import TextEncoder
from zsad.benchmarks.speed.maps import obvious
from zsad.data import splits
from zsad.data.index import load_index
from zsad.data.loader import ImageBatch, batches
from zsad.data.transforms import Preprocess
from zsad.method import Method
from zsad.metrics import CategoryMetrics
from zsad.types import BuiltMaps, FeatureRequest, ImageFeatures, ScoreContext, Scores

METHODS = ("filo", "faprompt", "kanoclip", "anomalyclip")
CATEGORY = "metal_nut"
IMAGES = 6


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return backbones.load("zsad-tiny")


@pytest.fixture(scope="module")
def batch(backbone: Backbone) -> ImageBatch:
    samples = splits.evaluated(load_index("synthetic"), IMAGES)[CATEGORY]
    (found,) = batches(samples, Preprocess.for_backbone(backbone.info, 0), batch_size=IMAGES)
    return found


def built(name: str, backbone: Backbone, **config: object) -> Method:
    torch.manual_seed(0)
    entry = registry.method(name)
    return entry.load()(entry.resolve(("test", config)), backbone.info).eval()


@torch.no_grad()
def scored(
    method: Method, features: ImageFeatures, backbone: Backbone, text: TextEncoder
) -> Scores:
    category = load_index("synthetic").categories[CATEGORY]
    context = ScoreContext(
        categories=[category] * features.batch_size,
        text=method.prepare_text([category], text),
        text_encoder=text,
        image_encoder=backbone.image_encoder(),
    )
    return method.score(features.restrict(method.feature_request().taps), context)


def metrics_of(maps: Tensor, image_scores: Tensor, batch: ImageBatch) -> dict[str, float]:
    metrics = CategoryMetrics()
    assert isinstance(batch.masks, Tensor)
    metrics.update(maps, batch.masks, image_scores, batch.labels, batch.has_mask)
    found = metrics.compute().metrics
    assert all(value is not None for value in found.values())
    return {name: float(value or 0) for name, value in found.items()}


@torch.no_grad()
def test_everything_off_gives_the_same_maps_and_metrics(
    backbone: Backbone, batch: ImageBatch
) -> None:
    size = backbone.info.image_size
    fast = {name: built(name, backbone) for name in METHODS}
    request = FeatureRequest.merge([m.feature_request() for m in fast.values()])
    together = backbone.encode_image(batch.images, request)
    naive = TextEncoder(backbone.model, backbone._tokenize, truncate=False, reuse=False)
    for name in METHODS:
        scores = scored(fast[name], together, backbone, backbone.text_encoder())
        spec = fast[name].map_spec()
        got = dense.build_maps(scores, spec, size)
        found = got.final, fast[name].image_score(scores, got).float()

        slow = built(name, backbone, **({"mmci": {"fold": "never"}} if name == "filo" else {}))
        parts = []
        for i in range(IMAGES):
            alone = backbone.encode_image(batch.images[i : i + 1], slow.feature_request())
            scores = scored(slow, alone, backbone, naive)
            final = obvious(scores.maps, spec, size)
            image = slow.image_score(scores, BuiltMaps(final, final)).float()
            parts.append((final, image))
        expected = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
        old, new = metrics_of(*expected, batch), metrics_of(*found, batch)
        for key, value in old.items():
            assert new[key] == pytest.approx(value, abs=5e-5), (name, key)
