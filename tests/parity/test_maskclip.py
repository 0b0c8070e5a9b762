"""MaskCLIP's dense features against the released code (volgachen/MaskCLIP, cd51dc5).

The released code segments objects by name: its image side is compared, with two unit vectors in the
place of the text.  Its layer norms have an epsilon of 1e-6 where CLIP's have 1e-5: 2.5e-5 of the
features below.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.parity import recipe_baselines
from tests.parity.baselines import Case, close, scored
from zsad.components.prompt_ensemble import EnsembleFeatures
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.request import categories_of

FEATURES = {"rtol": 1e-3, "atol": 1e-4}
COSINE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("maskclip_infer_a", tmp_path_factory.mktemp("maskclip"))


@pytest.fixture(scope="module")
def labels(case: Case) -> torch.Tensor:
    return recipe_baselines.maskclip_text(case.dims, case.seed)


def with_labels(loaded: LoadedMethod, labels: torch.Tensor) -> Any:
    """The two label embeddings of the case in the place of encoded prompts."""
    loaded.scorer.prepare(categories_of("object", 1))
    loaded.scorer.text["object"] = EnsembleFeatures(labels, ["normal", "anomalous"], labels, 1)
    return loaded


@pytest.mark.parametrize(("activation", "suffix"), [("gelu", ""), ("weights", "_quickgelu")])
def test_dense_features_and_cosines(
    case: Case, labels: torch.Tensor, activation: str, suffix: str
) -> None:
    z = case.arrays
    close(labels, z["text"], 0, 1e-6)
    overrides = {"encoder.activation": activation}
    loaded = with_labels(case.load("maskclip", overrides=overrides), labels)
    features, _, scores = scored(loaded, case)
    close(features.patches(loaded.method.dense), z[f"values_proj{suffix}"], **FEATURES)
    cosine = scores.maps[0] * loaded.method.config.temperature
    close(cosine, z[f"cosine{suffix}"], **COSINE)


def test_the_public_route_enlarges_them(case: Case, labels: torch.Tensor) -> None:
    loaded = with_labels(case.load("maskclip"), labels)
    found = loaded.predict_tensor(case.images)
    cosine = torch.from_numpy(case.arrays["cosine"])
    difference = (cosine[:, 1] - cosine[:, 0]) / loaded.method.config.temperature
    wanted = torch.nn.functional.interpolate(
        difference.sigmoid()[:, None], size=case.size, mode="bilinear", align_corners=False
    )
    close([p.anomaly_map for p in found], wanted[:, 0], 0, 1e-4)


def test_the_value_alone_is_another_feature(case: Case, labels: torch.Tensor) -> None:
    loaded = with_labels(case.load("maskclip", overrides={"value_path": "proj"}), labels)
    features, _, _ = scored(loaded, case)
    own = features.patches(loaded.method.dense)
    assert (own - torch.from_numpy(case.arrays["values_proj"])).abs().max() > 1
