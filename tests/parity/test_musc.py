"""MuSc against its released code (b76b93d): seven images of one category that score each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.parity.baselines import UNIT, Case, close
from zsad.methods.musc.method import CLS, aggregate, mutual_scores

AGGREGATED = {"rtol": 1e-4, "atol": 1e-5}
MAP = {"rtol": 0.0, "atol": 2e-5}
SCORE = {"rtol": 0.0, "atol": 1e-4}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("musc_infer_a", tmp_path_factory.mktemp("musc"))


@pytest.fixture(scope="module")
def loaded(case: Case) -> Any:
    return case.load("musc")


@torch.no_grad()
def test_stages(case: Case, loaded: Any) -> None:
    z, method = case.arrays, loaded.method
    features = loaded.backbone.encode_image(case.images, loaded.request)
    close(F.normalize(features[CLS], dim=-1), z["class_tokens"], **UNIT)
    encoder = loaded.backbone.image_encoder(loaded.request.variant)
    close(encoder.positions(features.grid), z["pos_embed_used"], 0, 1e-6)
    for r, degree in enumerate(case.spec["r_list"]):
        for k, tap in enumerate(method.taps):
            patches = aggregate(features.patches(tap), features.grid, degree)
            theirs = torch.from_numpy(z[f"lnamd_r{degree}_image0"][:, k])
            close(patches[0], F.normalize(theirs, dim=-1), **AGGREGATED)
            distances = 2 * mutual_scores(patches, method.config.nearest)
            close(distances, z["msm"][r, k], **MAP)


@pytest.mark.parametrize(("activation", "suffix"), [("gelu", ""), ("weights", "_quickgelu")])
def test_the_public_route(case: Case, activation: str, suffix: str) -> None:
    z = case.arrays
    loaded = case.load("musc", overrides={"encoder.activation": activation})
    found = loaded.predict_tensor(case.images, case.spec["class_name"])
    close([p.anomaly_map for p in found], z[f"map_final{suffix}"], **MAP)
    close([p.image_score for p in found], z[f"image_score{suffix}"], **SCORE)


def test_the_score_before_the_stretch_is_kept(case: Case, loaded: Any) -> None:
    largest = torch.from_numpy(case.arrays["map_max"])
    found = loaded.predict_tensor(case.images, case.spec["class_name"])
    maxima = [p.anomaly_map.max() for p in found]
    close(maxima, largest, **MAP)
    span = float(largest.max() - largest.min())
    raw = [p.info["raw_score"] for p in found]
    close(raw, case.arrays["image_score"] * span + float(largest.min()), **MAP)
    plain = case.load("musc", overrides={"stretch": False})
    close([p.image_score for p in plain.predict_tensor(case.images)], raw, 0, 1e-6)
