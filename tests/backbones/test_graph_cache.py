"""Graphs on disk: keyed by all that they depend on, and never believed when something is amiss."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.backbones.engines import openvino_cpu, processor
from zsad.backbones.engines.graph_cache import DESCRIPTION, Entry, shrink
from zsad.types import EncoderVariant, FeatureRequest, Tap

needs_openvino = pytest.mark.skipif(
    not processor.version("openvino"), reason="OpenVINO is not installed (extra `cpu`)"
)
CLS = FeatureRequest(frozenset([Tap("cls")]), EncoderVariant(image_size=40))


def keep(folder: Path, of: dict[str, Any], content: bytes = b"graph") -> Entry:
    entry = Entry(folder, of)
    entry.write(lambda place: (place / "a.bin").write_bytes(content) and None)
    return entry


def test_what_was_kept_is_read_by_the_same_key_alone(tmp_path: Path) -> None:
    of = {"weights": "w", "taps": [["cls", 0, 0]], "size": 40, "precision": "fp32"}
    assert Entry(tmp_path, of).read() is None
    assert keep(tmp_path, of).read() == {"a.bin": b"graph"}
    for key, value in (("weights", "v"), ("taps", []), ("size", 48), ("precision", "bf16")):
        assert Entry(tmp_path, of | {key: value}).read() is None


def other_content(entry: Entry) -> None:
    (entry.path / "a.bin").write_bytes(b"grapf")


def cut(entry: Entry) -> None:
    (entry.path / "a.bin").write_bytes(b"")


def gone(entry: Entry) -> None:
    (entry.path / "a.bin").unlink()


def foreign(entry: Entry) -> None:
    told = json.loads((entry.path / DESCRIPTION).read_text())
    (entry.path / DESCRIPTION).write_text(json.dumps(told | {"of": {"weights": "other"}}))


def no_description(entry: Entry) -> None:
    (entry.path / DESCRIPTION).write_text("{")


def odd_description(entry: Entry) -> None:
    (entry.path / DESCRIPTION).write_text("[]")


@pytest.mark.parametrize(
    "damage", [other_content, cut, gone, foreign, no_description, odd_description]
)
def test_damaged_and_foreign_entries_count_for_nothing(
    damage: Callable[[Entry], None], tmp_path: Path
) -> None:
    entry = keep(tmp_path, {"weights": "w"})
    damage(entry)
    assert entry.read() is None
    assert keep(tmp_path, {"weights": "w"}).read() == {"a.bin": b"graph"}


@pytest.mark.parametrize("when", ["writing", "describing", "renaming"])
def test_a_kill_while_a_graph_is_kept_leaves_nothing_that_is_believed(
    when: str, tmp_path: Path
) -> None:
    """A child is ended without a chance to clear up, at three moments."""
    entry = Entry(tmp_path, {"weights": "w"})
    child = os.fork()
    if child == 0:
        if when == "describing":
            Path.write_text = lambda *_, **__: os._exit(9)  # type: ignore[method-assign]
        elif when == "renaming":
            Path.rename = lambda *_: os._exit(9)  # type: ignore[method-assign]

        def save(place: Path) -> None:
            (place / "a.bin").write_bytes(b"half")
            if when == "writing":
                os._exit(9)

        entry.write(save)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert entry.read() is None
    assert keep(tmp_path, {"weights": "w"}).read() == {"a.bin": b"graph"}
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [entry.path.name]


def test_what_was_used_least_lately_goes_first(tmp_path: Path) -> None:
    entries = [keep(tmp_path, {"n": n}, bytes(1000)) for n in range(3)]
    for age, entry in zip((30, 10, 20), entries):
        os.utime(entry.path / DESCRIPTION, (1e9 - age, 1e9 - age))
    assert entries[0].read() is not None  # now the latest
    shrink(tmp_path, entries[2].path, 2600)
    assert [e.path.exists() for e in entries] == [True, False, True]
    shrink(tmp_path, entries[2].path, 0)
    assert [e.path.exists() for e in entries] == [False, False, True]


@needs_openvino
def test_an_encoder_from_disk_is_that_of_torch(
    clip_state: dict[str, Tensor],
    backbone: Backbone,
    images: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Converted once, read afterwards, and converted again when its file is damaged."""
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path / "cache"))
    torch.save(clip_state, tmp_path / "clip.pt")
    made = []
    convert = openvino_cpu.convert
    monkeypatch.setattr(openvino_cpu, "convert", lambda p: made.append(1) or convert(p))

    def features() -> Tensor:
        run = load("file", weights=tmp_path / "clip.pt", engine="openvino", engine_cache=True)
        found = run.encode_image(images, CLS)[Tap("cls")]
        assert run.engines.account(CLS.variant)["name"] == "openvino"
        return found

    wanted = backbone.encode_image(images, CLS)[Tap("cls")]
    for conversions in (1, 1):
        torch.testing.assert_close(features(), wanted, rtol=1e-5, atol=1e-5)
        assert len(made) == conversions
    (weights,) = (tmp_path / "cache").rglob("graph.bin")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    torch.testing.assert_close(features(), wanted, rtol=1e-5, atol=1e-5)
    assert len(made) == 2
