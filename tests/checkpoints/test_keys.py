"""Every list of the keys of a released file is taken: as it is, and as others have saved it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zsad import registry
from zsad.backbones.outline import outline
from zsad.backbones.wrappers import opened
from zsad.errors import WeightsError
from zsad.method import new_method

HERE = Path(__file__).resolve().parents[1] / "parity"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "parity"
INNER = {"faprompt": "prompt_learner", "anomalyclip": "prompt_learner", "filo": "filo"}


def lists() -> dict[str, Any]:
    """The key lists of this checkout, and those beside it, by the name of the method."""
    found: dict[str, Any] = {}
    for path in (*SHARED.rglob("keys_*.json"), *HERE.glob("keys_*.json")):
        keys = json.loads(path.read_text(encoding="utf-8"))
        if all(" (" in name for name in keys):  # several methods: "coop (ViT-L/14, ...)"
            found |= {name.split(" (")[0]: one["state_dict"] for name, one in keys.items()}
        else:
            found[path.stem.removeprefix("keys_")] = keys
    return found


def tensors(keys: Any) -> Any:
    """Tensors of the sizes that a list names; they take no memory."""
    if isinstance(keys, Mapping):
        return {k: tensors(v) for k, v in keys.items()}
    # Some lists say the type, others the shape alone.
    shape, kind = keys if keys and isinstance(keys[-1], str) else (keys, "float32")
    return torch.zeros((), dtype=getattr(torch, kind)).expand(shape)


BUILT: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}  # of a large tower: made once


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in state.items()}


@pytest.mark.parametrize("method", sorted(lists()))
@pytest.mark.parametrize("form", ["as released", "wrapped", "several devices", "with more"])
def test_the_keys_of_released_files_are_taken(method: str, form: str) -> None:
    if method not in registry.methods():
        pytest.skip(f"{method} is not hosted")
    state = tensors(lists()[method])
    if form == "several devices":
        state = {f"module.{k}": v for k, v in state.items()}
    if form == "with more":
        parts = [v for v in state.values() if isinstance(v, dict)] or [state]
        parts[0]["loss.weight"] = torch.zeros(3)
    if method in INNER:
        state = {INNER[method]: state}
    if form == "wrapped":
        state = {"state_dict": state, "epoch": 7}
    entry = registry.method(method)
    info = outline("vit-l-14-336")
    state, told = opened(state)
    imported = entry.load().import_official(state, entry.resolve(), info)
    config = entry.resolve(("file", imported.config))
    if config.preset == "released" and method not in ("coop", "cocoop"):
        # No key differs from the preset: figures of the file can equal those of its authors.
        assert config == entry.resolve(("preset", {"preset": "released"}))
    if (of := (method, repr(config))) not in BUILT:
        BUILT[of] = shapes(new_method(entry, config, info).state_dict())
    assert shapes(imported.state) == BUILT[of]
    said = "; ".join([*told, *imported.report])
    expected = {
        "wrapped": "unwrapped from 'state_dict'; ignored beside it: epoch",
        "several devices": "prefix 'module.' taken off",
        "with more": "loss.weight",
    }
    assert expected.get(form, "") in said


def test_wrappers_are_taken_off_and_told() -> None:
    state = {"model": {"module.a": 1, "b": {"module.module.c": 2}}, "optimizer": {}}
    assert opened(state) == (
        {"a": 1, "b": {"c": 2}},
        [
            "unwrapped from 'model'; ignored beside it: optimizer",
            "prefix 'module.' taken off 2 names",
        ],
    )
    both = {"module.a": 1, "a": 2}  # neither may replace the other
    assert opened(both) == (both, [])
    assert opened([1]) == ([1], [])


@pytest.mark.parametrize("name", ["zsad-tiny", "vit-l-14-336", "vit-b-16-plus-240"])
def test_sizes_without_weights(name: str) -> None:
    """Those of a loaded backbone, where one can be loaded here."""
    found = outline(name)
    if name == "zsad-tiny":
        from zsad import backbones

        loaded = backbones.load(name, device="cpu").info
        of_weights = ("weights_source", "weights_sha256", "weights_grade", "logit_scale", "banner")
        assert replace(found, **{k: getattr(loaded, k) for k in of_weights}) == loaded
    else:
        width = {"vit-l-14-336": (1024, 768, 24), "vit-b-16-plus-240": (896, 640, 12)}[name]
        assert (found.width, found.embed, found.depth) == width
    with pytest.raises(WeightsError, match="takes its sizes from a file"):
        outline("file")
