"""The image encoder returns what the released AnomalyCLIP and FiLo encoders return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from zsad.backbones import Backbone, load
from zsad.types import EncoderVariant, FeatureRequest, Tap

Case = tuple[dict[str, np.ndarray], Backbone, torch.Tensor, EncoderVariant]
Golden = Callable[[str], tuple[dict[str, np.ndarray], dict[str, Any]]]


def prepare(
    name: str, variant: dict[str, str], recipe: ModuleType, golden: Golden, folder: Path
) -> Case:
    """Rebuild the weights and images of a case; check that the random stream is the same."""
    arrays, spec = golden(name)
    state = recipe.clip_state(recipe.ClipDims(**spec["dims"]), spec["seed"])
    np.testing.assert_allclose(
        recipe.fingerprint(list(state.values())), arrays["recipe_fingerprint"], rtol=1e-4
    )
    torch.save(state, folder / f"{name}.pt")
    backbone = load("file", weights=folder / f"{name}.pt", image_size=spec["image_size"])
    images = recipe.images(spec["n"], spec["image_size"], spec["seed"])
    return arrays, backbone, images, EncoderVariant(**variant)  # type: ignore[arg-type]


def close(
    actual: torch.Tensor, expected: np.ndarray, rtol: float = 1e-3, atol: float = 1e-4
) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def anomalyclip(recipe: ModuleType, golden: Golden, tmp_path_factory: Any) -> Case:
    folder = tmp_path_factory.mktemp("anomalyclip")
    return prepare("encoder_a", {"pos_interp": "bilinear"}, recipe, golden, folder)


@pytest.fixture(scope="module")
def filo(recipe: ModuleType, golden: Golden, tmp_path_factory: Any) -> Case:
    variant = {"pos_interp": "bicubic", "activation": "gelu"}
    return prepare("filo_encoder_a", variant, recipe, golden, tmp_path_factory.mktemp("filo"))


def test_anomalyclip_encoder(anomalyclip: Case) -> None:
    arrays, backbone, images, variant = anomalyclip
    info = backbone.info
    start, last = info.vv_start(19), info.depth
    taps = {Tap("cls_raw"), Tap("tokens_proj", last)}
    taps |= {Tap(k, l, start) for k in ("vv", "vv_proj") for l in info.stages}
    taps |= {Tap("tokens", l) for l in info.stages}
    features = backbone.encode_image(images, FeatureRequest(frozenset(taps), variant))

    positions = backbone.image_encoder(variant).positions(features.grid)
    close(positions, arrays["pos_embed_used"], 1e-5, 1e-6)
    close(features[Tap("cls_raw")], arrays["plain_cls"])
    close(features[Tap("cls_raw")], arrays["cls"])
    close(features[Tap("tokens_proj", last)], arrays["plain_patch_proj_last"])
    for i, layer in enumerate(info.stages):
        close(features[Tap("vv_proj", layer, start)], arrays["vv_proj"][i])
        close(features[Tap("vv", layer, start)], arrays[f"hidden_vv_{layer}"])
        close(features[Tap("tokens", layer)], arrays[f"hidden_qkv_{layer}"])


def test_filo_encoder_states(filo: Case) -> None:
    arrays, backbone, images, variant = filo
    info = backbone.info
    start = info.vv_start(18)
    taps = {Tap("tokens_proj", info.depth)}
    taps |= {Tap("vv", l, start) for l in info.stages}
    taps |= {Tap("tokens", l) for l in info.stages}
    features = backbone.encode_image(images, FeatureRequest(frozenset(taps), variant))

    positions = backbone.image_encoder(variant).positions(features.grid)
    close(positions, arrays["pos_embed_used"], 1e-5, 1e-6)
    close(features[Tap("tokens_proj", info.depth)], arrays["pooled_tokens"])
    for layer in info.stages:
        # "first" is the v-v state, which at stage 6 is still the single path
        close(features[Tap("vv", layer, start)], arrays[f"hidden_first_{layer}"])
        if f"hidden_qkv_{layer}" in arrays:
            close(features[Tap("tokens", layer)], arrays[f"hidden_qkv_{layer}"])


def test_filo_aliased_taps_are_expressible(filo: Case) -> None:
    """The released encoder returns references that later blocks change in place: four of the
    seven are the final v-v state, two ordinary ones carry the next block's attention."""
    arrays, backbone, images, variant = filo
    info = backbone.info
    final_vv = Tap("vv", info.depth, info.vv_start(18))
    _, second, third, last = info.stages
    ordinary = [final_vv, Tap("mid", second), Tap("mid", third), Tap("tokens", last)]
    features = backbone.encode_image(
        images, FeatureRequest(frozenset([final_vv, *ordinary]), variant)
    )
    for expected, tap in zip(arrays["returned_qkv"], ordinary):
        close(features[tap], expected)
    for expected in arrays["returned_vv"]:
        close(features[final_vv], expected)
    returned = [ordinary[0]]  # released order: stage 6, then (v-v, ordinary) of each later stage
    for tap in ordinary[1:]:
        returned += [final_vv, tap]
    equal = [torch.equal(features[t], features[final_vv]) for t in returned]
    assert equal == arrays["returned_equal_to_vv0"].astype(bool).tolist()
