"""Checkpoint files: whole, honest about their origin, and never executed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.errors import WeightsError, ZsadError
from zsad.method import new_method

PARITY = Path(__file__).resolve().parents[1] / "parity"


def saved(backbone: Backbone, path: Path, **values: Any) -> Any:
    entry = registry.method("faprompt")
    method = new_method(entry, entry.resolve(("test", values)), backbone.info, 1)
    meta = checkpoints.describe(method, seed=1, epochs=3)
    checkpoints.save(path, method.trained_state(), meta)
    return method


def test_what_is_saved_is_loaded(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    method = saved(backbone, path, cap={"n_prompts": 4, "len": [3, 2]}, dap={"top_k": 6})
    loaded, notes = checkpoints.load_into(registry.method("faprompt"), path, backbone.info)
    assert notes == []
    assert loaded.config == method.config
    for key, value in method.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_sizes_of_the_checkpoint_win_other_keys_do_not(
    backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.safetensors"
    saved(backbone, path, cap={"n_prompts": 4})
    layers = [("the command line", {"cap": {"n_prompts": 7}, "post": {"sigma": 2.0}})]
    loaded, notes = checkpoints.load_into(registry.method("faprompt"), path, backbone.info, layers)
    assert loaded.config.cap.n_prompts == 4
    assert loaded.config.post.sigma == 2.0
    assert notes == [
        "faprompt.cap.n_prompts (the command line) yields to the checkpoint's own size"
    ]
    assert f"{notes[0]} (a.safetensors), which was set in vain; leave it out" in caplog.text


def test_a_preset_does_not_say_how_a_state_was_trained(backbone: Backbone, tmp_path: Path) -> None:
    """FAPrompt's `paper` trains for 7 epochs: a state of 3 was a column of 7."""
    path, entry = tmp_path / "a.safetensors", registry.method("faprompt")
    saved(backbone, path, train={"epochs": 3})
    for preset in entry.presets:
        layers = [("the command line", {"preset": preset})]
        loaded, _ = checkpoints.load_into(entry, path, backbone.info, layers)
        assert (loaded.config.preset, loaded.config.train.epochs) == (preset, 3)


def test_a_preset_that_is_gone_leaves_its_values(backbone: Backbone, tmp_path: Path) -> None:
    """``aprilgan.preset=paper`` was ``fuse: sum``."""
    entry, path = registry.method("aprilgan"), tmp_path / "a.safetensors"
    method = new_method(entry, entry.resolve(("test", {"fuse": "sum"})), backbone.info, 1)
    meta = checkpoints.describe(method)
    old = {
        k: v for k, v in meta.config.items() if k not in ("encoder", "names", "shots", "stretch")
    }
    checkpoints.save(path, method.trained_state(), replace(meta, config={**old, "preset": "paper"}))
    loaded, notes = checkpoints.load_into(entry, path, backbone.info)
    assert (loaded.config.preset, loaded.config.fuse, loaded.config.shots) == ("default", "sum", 0)
    assert notes == ["its preset 'paper' is no longer there; its values are kept"]


def test_another_backbone_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(backbone, path)
    other = replace(backbone.info, weights_sha256="f" * 64, name="other")
    with pytest.raises(WeightsError, match=r"was trained on backbone 'file'.*not on 'other'"):
        checkpoints.load_into(registry.method("faprompt"), path, other)


def test_another_method_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(backbone, path)
    with pytest.raises(WeightsError, match="is of method 'faprompt', not 'anomalyclip'"):
        checkpoints.load_into(registry.method("anomalyclip"), path, backbone.info)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_runs_code_is_refused(
    backbone: Backbone, tmp_path: Path, wrapped: bool
) -> None:
    evil, proof = tmp_path / "evil.pth", tmp_path / "ran"
    thing = Malicious(proof)
    torch.save({"prompt_learner": thing} if wrapped else thing, evil)
    with pytest.raises(WeightsError, match=r"evil\.pth.*refused") as caught:
        checkpoints.load_into(registry.method("faprompt"), evil, backbone.info)
    assert "\n" not in str(caught.value)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x10\0\0\0\0\0\0\0{broken json!!!!"])
def test_a_file_that_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"junk\.bin") as caught:
        checkpoints.load_any(path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_and_a_missing_one(backbone: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved(backbone, path)
    half = tmp_path / "half.safetensors"
    half.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"half\.safetensors: damaged"):
        checkpoints.load_any(half)
    with pytest.raises(WeightsError, match="no such file"):
        checkpoints.load_any(tmp_path / "gone")


@pytest.mark.parametrize("bits", [0, 4])
def test_values_that_are_not_those_written(backbone: Backbone, tmp_path: Path, bits: int) -> None:
    """One bit of one number; a file of an earlier version says nothing of its values."""
    path = tmp_path / "a.safetensors"
    saved(backbone, path)
    found = checkpoints.load_any(path)
    assert found.meta is not None
    checkpoints.save(path, found.state, found.meta, bits)
    whole = bytearray(path.read_bytes())
    whole[-100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(WeightsError, match=r"a\.safetensors: damaged .*do not match their digest"):
        checkpoints.load_any(path)
    header = {"format": checkpoints.FORMAT, "zsad": json.dumps(asdict(found.meta))}
    path.write_bytes(to_bytes(found.state, header))
    assert checkpoints.load_any(path).kind == "zsad"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t * float("nan"), "not finite numbers"),
        (lambda t: t.int(), "holds int32 values"),
        (lambda t: t > 0, "holds bool values"),
    ],
)
def test_tensors_that_no_training_wrote(
    backbone: Backbone, tmp_path: Path, change: Callable[[Tensor], Tensor], words: str
) -> None:
    path = tmp_path / "odd.safetensors"
    saved(backbone, path)
    found = checkpoints.load_any(path)
    assert found.meta is not None
    key = sorted(found.state)[0]
    checkpoints.save(path, {**found.state, key: change(found.state[key])}, found.meta)
    with pytest.raises(WeightsError, match=rf"odd\.safetensors: '{key}' .*{words}"):
        checkpoints.load_into(registry.method("faprompt"), path, backbone.info)


def _changed_account(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the account anew, as JSON of any form."""
    found = checkpoints.load_any(path)
    assert found.meta is not None
    fields = json.loads(json.dumps(asdict(found.meta)))
    text = change(fields)
    account = text if isinstance(text, str) else json.dumps(fields)
    path.write_bytes(to_bytes(found.state, {"format": checkpoints.FORMAT, "zsad": account}))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(config=[1]),
        lambda m: m.update(config="text"),
        lambda m: m.update(config=True),
        lambda m: m.update(backbone_sha256=5),
        lambda m: m.update(taps=[["cls", "x", 0]]),
        lambda m: m.update(trained_on=[]),
        lambda m: m["config"]["cap"].update(base_len=10**30),
        lambda m: m["config"]["cap"].update(n_prompts=10**9),
        lambda m: m["config"]["dap"].update(hidden=900_000),
        lambda m: m["config"]["deep"].update(depth=10**9),
        lambda m: m["config"]["deep"].update(depth=10**4 + 1),
        lambda m: "[" * 100_000,
        lambda m: '{"a":' * 100_000,
        lambda m: '{"method": NaN}',
        lambda m: "",
    ],
)
def test_accounts_that_no_training_wrote(
    backbone: Backbone, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "odd.safetensors"
    saved(backbone, path)
    _changed_account(path, change)
    for layers in ((), [("here", {"cap": {"n_prompts": 7}})]):
        with pytest.raises(ZsadError) as caught:
            checkpoints.load_into(registry.method("faprompt"), path, backbone.info, layers)
        assert "odd.safetensors" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_official_file_becomes_one_of_ours(
    backbone: Backbone, recipe: ModuleType, tmp_path: Path
) -> None:
    info = replace(backbone.info, embed=backbone.info.text_width)  # as in every official model
    dims = recipe.ClipDims(text_width=info.text_width)
    head = recipe.faprompt_learnables(dims, 3, depth=5, deep_tokens=3, prompts=6, top_k=4)
    source, target = tmp_path / "official.pth", tmp_path / "ours.safetensors"
    torch.save({"prompt_learner": dict(head)}, source)
    entry = registry.method("faprompt")
    report = checkpoints.import_file(entry, source, target, info)
    assert any("skipped 8 tensors of compound_prompt_projections" in line for line in report)
    assert any("token buffers" in line for line in report) is False
    loaded, _ = checkpoints.load_into(entry, target, info)
    direct, _ = checkpoints.load_into(entry, source, info)
    assert loaded.config == direct.config
    config = loaded.config
    assert (config.preset, config.topk, config.loss.image) == ("released", "released", "released")
    assert (config.cap.n_prompts, config.dap.top_k) == (6, 4)
    assert (config.deep.depth, config.deep.tokens) == (5, 3)
    for key, value in direct.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    with pytest.raises(WeightsError, match="own format already"):
        checkpoints.import_file(entry, target, tmp_path / "again", info)


@pytest.mark.parametrize("method", ["faprompt", "anomalyclip"])
def test_key_lists_of_the_released_files_are_accepted(method: str, backbone: Backbone) -> None:
    """Real sizes, buffers included; and a list that lacks a key is refused by name."""
    keys = json.loads((PARITY / f"keys_{method}.json").read_text(encoding="utf-8"))
    state = {k: torch.zeros(shape, dtype=getattr(torch, kind)) for k, (shape, kind) in keys.items()}
    info = replace(backbone.info, embed=768, text_width=768)
    entry = registry.method(method)
    imported = entry.load().import_official({"prompt_learner": state}, entry.resolve(), info)
    config = entry.resolve(("file", imported.config))
    built = new_method(entry, config, info, 0)
    built.load_state_dict(imported.state)
    assert any("5,512,192" in line for line in imported.report)
    assert any("6 token buffers" in line for line in imported.report)

    partial = {k: v for k, v in state.items() if k not in ("ctx_neg", "compound_prompts_text.3")}
    partial["extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        entry.load().import_official({"prompt_learner": partial}, entry.resolve(), info)
    text = str(caught.value)
    assert "missing: compound_prompts_text.3, ctx_neg; further entries: extra.weight" in text
    for wrong in ([1, 2], {"model": 3}, {"prompt_learner": {"ctx_pos": 5, "ctx_neg": 6}}):
        with pytest.raises(WeightsError):
            entry.load().import_official(wrong, entry.resolve(), info)


@pytest.mark.parametrize(("method", "values"), [("mvfa", 12_582_912), ("aprilgan", 3_148_800)])
def test_key_lists_of_stage_methods_are_accepted(
    method: str, values: int, backbone: Backbone
) -> None:
    keys = json.loads((PARITY / f"keys_{method}.json").read_text(encoding="utf-8"))
    state = {
        part: {
            k: torch.zeros(shape, dtype=getattr(torch, kind)) for k, (shape, kind) in own.items()
        }
        for part, own in keys.items()
    }
    info = replace(backbone.info, width=1024, embed=768, depth=24, stages=(6, 12, 18, 24))
    entry = registry.method(method)
    imported = entry.load().import_official(state, entry.resolve(), info)
    built = new_method(entry, entry.resolve(("file", imported.config)), info, 0)
    built.load_state_dict(imported.state)
    assert built.config.preset == "released"
    assert sum(v.numel() for v in built.state_dict().values()) == values


def test_files_of_the_other_method_are_refused(backbone: Backbone, recipe: ModuleType) -> None:
    info = replace(backbone.info, embed=backbone.info.text_width)
    dims = recipe.ClipDims(text_width=info.text_width)
    theirs = {
        "anomalyclip": recipe.faprompt_learnables(dims, 0),
        "faprompt": recipe.anomalyclip_learnables(dims, 0),
    }
    for name, head in theirs.items():
        entry = registry.method(name)
        with pytest.raises(WeightsError, match="patch_meta_net"):
            entry.load().import_official({"prompt_learner": dict(head)}, entry.resolve(), info)
