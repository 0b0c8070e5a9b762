"""Weight files: every format, safely; where they are looked for; what happens without any."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.backbones.build import build_model, config_of_state, trained_activation
from zsad.backbones.locate import find_cached
from zsad.backbones.specs import BackboneSpec, identify, quarters, spec, specs
from zsad.backbones.weights import read_state, resolve
from zsad.errors import RequestError, WeightsError
from zsad.types import FeatureRequest, Tap

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, Tensor]


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def torchscript(model: Any, path: Path) -> None:
    """Save a model the way OpenAI does: a traced archive with extra integer tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.zeros(1, 3, 40, 40, dtype=model.visual.conv1.weight.dtype)
        texts = torch.zeros(1, 77, dtype=torch.int)
        torch.jit.trace(model, (images, texts), check_trace=False).save(str(path))


# ----------------------------------------------------------------------------- the formats
@pytest.fixture(scope="session")
def files(
    clip_state: State, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same weights in every format that is accepted."""
    folder = tmp_path_factory.mktemp("formats")
    paths = {n: folder / n for n in ("plain.pt", "jit.pt", "oc.bin", "oc.safetensors", "legacy.pt")}
    torch.save(clip_state, paths["plain.pt"])
    torchscript(backbone.model, paths["jit.pt"])
    wrapped = {"epoch": 32, "state_dict": {f"module.{k}": v for k, v in clip_state.items()}}
    torch.save(wrapped, paths["oc.bin"])
    save_file({k: v.contiguous() for k, v in clip_state.items()}, paths["oc.safetensors"])
    torch.save(clip_state, paths["legacy.pt"], _use_new_zipfile_serialization=False)
    return paths


@pytest.mark.parametrize("name", ["plain.pt", "jit.pt", "oc.bin", "oc.safetensors", "legacy.pt"])
def test_every_format_gives_the_exact_values(
    files: dict[str, Path], clip_state: State, name: str
) -> None:
    got = read_state(files[name])
    assert got.keys() == clip_state.keys()
    for key, value in clip_state.items():
        assert torch.equal(got[key], value), key


def test_the_ending_of_a_file_does_not_matter(
    files: dict[str, Path], clip_state: State, tmp_path: Path
) -> None:
    for name in ("jit.pt", "oc.safetensors"):
        other = tmp_path / f"{name}.download"
        other.write_bytes(files[name].read_bytes())
        assert read_state(other).keys() == clip_state.keys()


def test_half_precision_archives_keep_their_values(
    clip_state: State, files: dict[str, Path], tmp_path: Path
) -> None:
    """OpenAI's archives hold halves; they are widened, never computed in half precision."""
    half = {k: v.half() for k, v in clip_state.items()}
    model = build_model(spec("file"), config_of_state(clip_state), "quick_gelu", half)
    model.half()
    torchscript(model, tmp_path / "half.pt")
    assert (tmp_path / "half.pt").stat().st_size < (files["jit.pt"]).stat().st_size * 0.6
    loaded = load("file", weights=tmp_path / "half.pt")
    for key, value in loaded.model.state_dict().items():
        assert value.dtype is torch.float32
        assert torch.equal(value, half[key].float()), key


def test_values_are_not_rounded_while_building(backbone: Backbone, clip_state: State) -> None:
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, clip_state[key]), key


@pytest.mark.parametrize("wrapper", ["clip_model.", "module.", "model."])
def test_prefixed_names_are_understood(clip_state: State, tmp_path: Path, wrapper: str) -> None:
    state = {f"{wrapper}{k}": v for k, v in clip_state.items()}
    if wrapper == "clip_model.":  # as in FiLo's checkpoints, beside the trained parts
        state["adapter.fc.0.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "state.pt")
    assert read_state(tmp_path / "state.pt").keys() == clip_state.keys()


# ---------------------------------------------------------------------------------- safety
class Attack:
    """Writes a file when it is unpickled by anything that runs code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused(tmp_path: Path, clip_state: State, legacy: bool) -> None:
    target = tmp_path / "owned"
    path = tmp_path / "evil.pt"
    payload = {**clip_state, "extra": Attack(target)}
    torch.save(payload, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"evil\.pt: refused") as error:
        load("file", weights=path)
    one_line(error)
    assert not target.exists()


def test_an_archive_with_code_in_its_data_is_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "owned"
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(files["jit.pt"]) as source, zipfile.ZipFile(path, "w") as copy:
        for item in source.namelist():
            data = source.read(item)
            if item.endswith("/data.pkl"):
                data = pickle.dumps(Attack(target), protocol=2)
            copy.writestr(item, data)
    with pytest.raises(WeightsError, match=r"refused, its data refers to") as error:
        load("file", weights=path)
    one_line(error)
    assert not target.exists()


def test_a_storage_that_is_too_short_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "short.pt"
    with zipfile.ZipFile(files["jit.pt"]) as source, zipfile.ZipFile(path, "w") as copy:
        for item in source.namelist():
            data = source.read(item)
            copy.writestr(item, data[:8] if re.search(r"/data/\d+$", item) else data)
    with pytest.raises(WeightsError, match="cut short"):
        read_state(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04broken", b"\x10" + b"\0" * 7 + b"{"]
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"broken\.pt: not a readable weight file") as error:
        read_state(path)
    one_line(error)


def test_a_file_without_a_clip_is_named(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="not the state dict of a CLIP vision transformer"):
        load("file", weights=tmp_path / "other.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list, not a state dict"):
        load("file", weights=tmp_path / "list.pt")


# ------------------------------------------------------------------------- missing, misfit
def test_missing_weights_say_which_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load("vit-l-14-336", offline=True)
    text = one_line(error)
    for part in ("ViT-L-14-336px.pt", str(tmp_path), "backbone.weights=FILE", "zsad-tiny"):
        assert part in text
    with pytest.raises(WeightsError, match=r"nowhere\.pt: no such file"):
        load("vit-l-14-336", weights=tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match=r"give backbone\.weights=FILE"):
        load("file")
    with pytest.raises(WeightsError, match=r"give backbone\.weights=FILE"):
        load("file", weights="random")


def test_a_file_in_the_cache_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    (tmp_path / "ViT-L-14-336px.pt").write_bytes(b"weights")
    found = resolve(spec("vit-l-14-336"), None, offline=True)
    assert found.path == tmp_path / "ViT-L-14-336px.pt"
    assert found.source == "hub:openai"
    assert identify("vit-l-14-336") == (found.sha256, False)
    assert find_cached(["other.pt"], "") is None
    other = tmp_path / "mine.pt"
    other.write_bytes(b"other weights")
    explicit = resolve(spec("vit-l-14-336"), other, offline=True)  # an explicit path wins
    assert explicit.source == "file:mine.pt"
    assert identify("vit-l-14-336", str(other)) == (explicit.sha256, False)


def test_weights_of_another_architecture_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="do not fit backbone 'ViT-B-32'") as error:
        load("ViT-B-32", weights=files["plain.pt"])
    one_line(error)


def test_missing_and_unknown_tensors_are_refused(clip_state: State, tmp_path: Path) -> None:
    key = "visual.ln_post.weight"
    torch.save({k: v for k, v in clip_state.items() if k != key}, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=rf"{key} is missing"):
        load("file", weights=tmp_path / "less.pt")
    torch.save({**clip_state, "visual.more": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(WeightsError, match=r"visual\.more is unknown"):
        load("file", weights=tmp_path / "more.pt")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit-l-14-366", {}, "did you mean 'vit-l-14-336'"),
        ("ViT-B-33", {}, "did you mean 'ViT-B-32'"),
        ("RN50", {"weights": "random"}, "only CLIP vision transformers"),
        ("coca_ViT-B-32", {"weights": "random"}, "only CLIP vision transformers"),
        ("vit-b-16-plus-240", {"weights": "random", "precision": "int8"}, "choose one of fp32"),
    ],
)
def test_wrong_requests(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        load(name, **options)
    one_line(error)


def test_image_sizes_must_be_tiled_by_patches(files: dict[str, Path]) -> None:
    assert load("file", weights=files["plain.pt"], image_size=56).info.grid() == (7, 7)
    with pytest.raises(RequestError, match=r"image_size=60: .* patch size 8; nearest: 64"):
        load("file", weights=files["plain.pt"], image_size=60)


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


# ----------------------------------------------------------------------------- the registry
def test_registered_backbones_are_listed_without_torch() -> None:
    code = (
        "import sys; from zsad.registry import list_backbones; "
        "from zsad.backbones.specs import spec, identify; identify('ViT-B-32', 'random'); "
        "print(list_backbones()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(sorted(specs()))


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
        import open_clip

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
