"""WinCLIP against its re-implementation by AnomalyCLIP's authors (Accurate-WinCLIP, eef4f8c)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.parity.baselines import UNIT, Case, close, scored
from zsad.components import windows
from zsad.types import Tap

MAP = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("winclip_infer_a", tmp_path_factory.mktemp("winclip"))


@pytest.fixture(scope="module")
def zero_shot(case: Case) -> Any:
    loaded = case.load("winclip")
    return (loaded, *scored(loaded, case, case.names))


def test_text(case: Case, zero_shot: Any) -> None:
    _, _, context, _ = zero_shot
    pairs = torch.stack([context.text[name].pair for name in case.names])
    close(pairs, case.arrays["text"], **UNIT)


@pytest.mark.parametrize("side", [3, 2])
def test_windows(case: Case, zero_shot: Any, side: int) -> None:
    loaded, features, context, _ = zero_shot
    z = case.arrays
    members = windows.window_patches(features.grid, side).T + 1
    close(members, z[f"window{side}_members"])
    raw = features[Tap("window", side)]
    close(F.normalize(raw[:2], dim=-1), z[f"window{side}_unit"], **UNIT)
    text = torch.stack([context.text[c.key].pair for c in context.categories])
    probability = loaded.method.probability(raw, text)
    close(probability, z[f"window{side}_probability"], **MAP)
    spread = windows.spread(probability, features.grid, side, eps=loaded.method.config.floor)
    close(spread, z[f"window{side}_map"], **MAP)


def test_the_public_route_zero_shot(case: Case, zero_shot: Any) -> None:
    loaded, features, _, _ = zero_shot
    close(F.normalize(features[Tap("cls")], dim=-1), case.arrays["image_feature"], **UNIT)
    found = loaded.predict_tensor(case.images, case.names)
    close([p.anomaly_map for p in found], case.arrays["map_final"], **MAP)
    close([p.image_score for p in found], case.arrays["image_score"], **MAP)


def test_the_public_route_few_shot(case: Case) -> None:
    loaded = case.load("winclip", overrides={"shots": case.spec["k_shot"]})
    found = loaded.predict_tensor(case.images, case.names, references=case.references())
    close([p.anomaly_map for p in found], case.arrays["fewshot_map_final"], **MAP)
    close([p.image_score for p in found], case.arrays["fewshot_image_score"], **MAP)


@torch.no_grad()
def test_distances_to_the_references(case: Case) -> None:
    loaded = case.load("winclip", overrides={"shots": case.spec["k_shot"]})
    near = {
        name: loaded.backbone.encode_image(pictures, loaded.request)
        for name, pictures in case.references().items()
    }
    features, _, scores = scored(loaded, case, case.names, references=near)
    close(scores.parts["association_map"], case.arrays["fewshot_distance_map"], **MAP)
    close(
        features.patches(loaded.method.memory_tap)[:2], case.arrays["patch_tokens_last"], 1e-3, 1e-4
    )


def test_each_reading_of_the_paper_misses(case: Case) -> None:
    """The comparison is sharp enough to tell the paper from the re-implementation."""
    for key, value, least in (
        ("templates", "paper", 1e-3),
        ("unit_first", True, 1e-3),
        ("names", "spoken", 1e-3),
    ):
        found = case.load("winclip", overrides={key: value}).predict_tensor(case.images, case.names)
        maps = torch.stack([torch.from_numpy(p.anomaly_map) for p in found])
        assert (maps - torch.from_numpy(case.arrays["map_final"])).abs().max() > least, key
