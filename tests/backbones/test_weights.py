"""Weight files: every format, safely; where they are looked for; what happens without any."""

from __future__ import annotations

import pickle
import re
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.backbones.build import build_model, config_of_state
from zsad.backbones.locate import find_cached, identify
from zsad.backbones.specs import spec
from zsad.backbones.weights import read_state, resolve
from zsad.errors import RequestError, WeightsError

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, Tensor]


def one_line(error: pytest.ExceptionInfo[Any]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ----------------------------------------------------------------------------- the formats
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
    clip_state: State,
    files: dict[str, Path],
    torchscript: Callable[[Any, Path], None],
    tmp_path: Path,
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


def test_no_network_and_a_failing_hub_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("https_proxy", "HTTPS_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("network is down\nsecond line")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(WeightsError, match=r"no connection to huggingface\.co: network") as error:
        load("vit-l-14-336")
    one_line(error)
    monkeypatch.setattr("zsad.backbones.weights.unreachable", lambda host, hub: "")
    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(
        WeightsError, match=r"cannot be fetched \(network is down ... second line\)"
    ) as error:
        load("vit-l-14-336")
    one_line(error)
    with pytest.raises(WeightsError, match=r"no weights 'laion9b' for ViT-B-32; known: openai"):
        load("ViT-B-32/laion9b")


def test_a_file_in_the_cache_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    (tmp_path / "ViT-L-14-336px.pt").write_bytes(b"weights")
    found = resolve(spec("vit-l-14-336"), None, offline=True)
    assert found.path == tmp_path / "ViT-L-14-336px.pt"
    assert (found.source, found.tag) == ("file:ViT-L-14-336px.pt", "openai")
    assert found.origin.grade == "unknown"  # whatever its name says
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
        ("ViT-H-14-worldwide", {"weights": "random"}, "CLIP's own tokenizer"),
        (
            "vit-b-16-plus-240",
            {"weights": "random", "precision": "int4"},
            "choose one of auto, fp32",
        ),
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
