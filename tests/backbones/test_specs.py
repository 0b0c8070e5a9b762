"""The registry of backbones, and what a loaded one tells about itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.backbones.backbone import preprocessing
from zsad.backbones.build import config_of_state, trained_activation
from zsad.backbones.locate import identify
from zsad.backbones.specs import (
    OPENAI_MEAN,
    OPENAI_STD,
    BackboneSpec,
    quarters,
    spec,
    specs,
    usable_open_clip_models,
)
from zsad.errors import WeightsError
from zsad.types import BackboneInfo, FeatureRequest, Tap

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, Tensor]


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------- what the info tells
def test_info_of_a_file(backbone: Backbone) -> None:
    info = backbone.info
    assert (info.depth, info.width, info.embed, info.patch) == (5, 128, 48, 8)
    assert (info.text_depth, info.text_width, info.context_length) == (4, 128, 77)
    assert info.image_size == 40
    assert info.stages == quarters(5) == (1, 2, 4, 5)
    assert info.weights_source == "file:state.pt"
    assert len(info.weights_sha256) == 64
    assert not info.random
    assert info.activation == "quick_gelu"


def test_narrow_towers_have_one_head(recipe: Any, tmp_path: Path) -> None:
    dims = recipe.ClipDims(
        vision_width=48, vision_layers=2, patch=8, grid=2, embed=16, text_width=96, text_layers=2
    )
    torch.save(dict(recipe.clip_state(dims, 1)), tmp_path / "narrow.pt")
    narrow = load("file", weights=tmp_path / "narrow.pt")
    assert narrow.image_encoder().blocks[0].heads == 1
    assert narrow.text_encoder().blocks[0].heads == 1
    image = recipe.images(1, 16, 0)
    model: Any = narrow.model
    got = narrow.encode_image(image, FeatureRequest.of(Tap("cls")))[Tap("cls")]
    torch.testing.assert_close(got, model.encode_image(image), rtol=1e-4, atol=1e-5)


def test_random_weights_are_marked_reproducible_and_leave_the_generator_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 2,
        },
    }
    monkeypatch.setattr(BackboneSpec, "model_config", lambda self: config)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (load("ViT-B-32", weights="random") for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert first.info.random
    assert first.info.weights_source == "random"
    assert "random" in first.info.banner
    assert first.info.weights_sha256 == identify("ViT-B-32", "random")[0] != ""
    other = second.model.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in first.model.state_dict().items())


# ---------------------------------------------------------------------- the weight tag
def test_the_activation_is_checked_against_the_weight_tag() -> None:
    large = spec("vit-l-14-336")
    config = large.model_config() or {}
    assert trained_activation(large, config, "openai") == "quick_gelu"
    wrong = BackboneSpec(
        "wrong", "", open_clip_model="ViT-L-14-336", pretrained="openai", activation="gelu"
    )
    with pytest.raises(WeightsError, match="trained with quick_gelu"):
        trained_activation(wrong, config, "openai")
    plus = spec("vit-b-16-plus-240")
    assert trained_activation(plus, plus.model_config() or {}, "laion400m_e32") == "gelu"
    other = spec("ViT-B-32/openai")
    assert trained_activation(other, other.model_config() or {}, "openai") == "quick_gelu"
    quick = spec("ViT-B-32-quickgelu")
    assert trained_activation(quick, quick.model_config() or {}, "") == "quick_gelu"


def test_an_openai_archive_brings_its_activation(
    files: dict[str, Path], clip_state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given for an open_clip model that would otherwise be built with GELU."""
    config = config_of_state(clip_state)
    monkeypatch.setattr(BackboneSpec, "model_config", lambda self: config)
    assert load("ViT-B-32", weights=files["jit.pt"]).info.activation == "quick_gelu"
    assert load("ViT-B-32", weights=files["plain.pt"]).info.activation == "gelu"


def test_normalisation_follows_the_weight_tag() -> None:
    openai = preprocessing(spec("ViT-L-14/openai"), "openai")
    assert openai == {"mean": OPENAI_MEAN, "std": OPENAI_STD, "interpolation": "bicubic"}
    inception = preprocessing(spec("ViT-L-14"), "laion2b_s32b_b82k")
    assert inception["mean"] == inception["std"] == (0.5, 0.5, 0.5)
    for name, registered in specs().items():
        found = preprocessing(registered, registered.pretrained)
        assert found.get("mean", registered.mean) == registered.mean, name
        assert found.get("std", registered.std) == registered.std, name


# ----------------------------------------------------------------------------- the registry
def test_registered_backbones_are_listed_without_torch() -> None:
    code = (
        "import sys; from zsad.registry import list_backbones; "
        "from zsad.backbones.locate import identify; identify('ViT-B-32', 'random'); "
        "print(list_backbones()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(sorted({*specs(), *usable_open_clip_models()}))


def test_vit_l_has_the_names_and_shapes_of_the_released_weights(recipe: Any) -> None:
    """FiLo's released checkpoint holds OpenAI's ViT-L/14@336 in OpenAI's naming."""
    keys = json.loads((ROOT / "tests" / "parity" / "keys_filo.json").read_text())
    released = {
        k.removeprefix("clip_model."): tuple(shape)
        for k, (shape, _) in keys.items()
        if k.startswith("clip_model.")
    }
    large = spec("vit-l-14-336")
    config = large.model_config() or {}
    with torch.device("meta"):
        model = open_clip.CLIP(**{k: config[k] for k in ("embed_dim", "vision_cfg", "text_cfg")})
    ours = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    dual = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.attn\.")  # renamed there from 6 on
    compared = 0
    for name, shape in ours.items():
        renamed = dual.match(name)
        if renamed and int(renamed[1]) >= 6:
            continue
        if name == "visual.positional_embedding":  # resized there to 37 x 37
            assert shape == (577, 1024)
            assert released[name] == (1370, 1024)
            continue
        assert released[name] == shape, name
        compared += 1
    assert compared > 300
    recipe_names = recipe.clip_state(
        recipe.ClipDims(vision_width=64, vision_layers=24, text_width=64, text_layers=12), 0
    ).keys()
    assert set(ours) == set(recipe_names)
    assert large.stages == quarters(24) == (6, 12, 18, 24)
    assert large.image_size == 518


def test_a_backbone_may_have_its_own_vv_start() -> None:
    """ViT-L keeps the papers' starts; weights made for one start have the long path there."""
    info = BackboneInfo(
        name="x",
        title="x",
        image_size=224,
        patch=16,
        depth=24,
        width=64,
        embed=64,
        text_width=64,
        text_depth=3,
        context_length=77,
        stages=(6, 12, 18, 24),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    assert [info.vv_start(n) for n in (24, 19, 18, 1)] == [1, 6, 7, 24]
    assert [replace(info, depth=8).vv_start(n) for n in (19, 18)] == [3, 3]
    own = replace(info, depth=8, vv_first=6)
    assert [own.vv_start(n) for n in (19, 18, 1)] == [6, 6, 8]
