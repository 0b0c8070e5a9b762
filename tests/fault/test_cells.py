"""What goes wrong with one image, one method or the device costs its cells and nothing else.

These run in the process of the test; a fault that cannot be had here (of a GPU, of a thread) is
put in by hand at the place where it would happen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fault.place import assert_same
from tests.runner.conftest import bench, definition, plugins
from zsad.backbones import Backbone
from zsad.data import loader
from zsad.types import FeatureRequest, ImageFeatures

__all__ = ["bench", "definition", "plugins"]  # fixtures

pytestmark = pytest.mark.fault

Bench = Callable[..., dict[str, Any]]
Document = dict[str, Any]


def cells(document: Document) -> dict[tuple[str, str], Any]:
    return {(c["method"], c["category"]): c["metrics"] for c in document["cells"]}


def only_cloth_failed(document: Document, *words: str, methods: int = 1) -> None:
    assert {category for _, category in cells(document)} == {"bolt"}
    assert len(document["failed"]) == methods
    for failure in document["failed"]:
        assert failure["cell"]["category"] == "cloth"
        assert "\n" not in failure["error"]
        for word in words:
            assert word in failure["error"]


# ------------------------------------------------------------------------------------ images
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def claim_to_be_huge(path: Path) -> None:
    head = bytearray(path.read_bytes())
    head[16:24] = (60000).to_bytes(4, "big") * 2  # width and height in a PNG's header
    path.write_bytes(head)


SPOILT: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no image"),
    "huge": claim_to_be_huge,
    "a program": lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_image_that_cannot_be_read(bench: Bench, definition: Path, name: str) -> None:
    image = definition.parent / "things" / "cloth" / "test" / "good" / "002.png"
    SPOILT[name](image)
    only_cloth_failed(bench("clip,winclip"), "cloth/test/good/002.png", methods=2)


def as_mask(size: tuple[int, int], path: Path) -> None:
    Image.new("L", size, 255).save(path)


WRONG_MASKS: dict[str, Callable[[Path], object]] = {
    "of other proportions": lambda p: as_mask((64, 40), p),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:60]),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no mask"),
}


@pytest.mark.parametrize("name", WRONG_MASKS)
def test_a_mask_that_is_wrong(bench: Bench, definition: Path, name: str) -> None:
    mask = definition.parent / "things" / "cloth" / "ground_truth" / "spot" / "001_mask.png"
    WRONG_MASKS[name](mask)
    only_cloth_failed(bench("clip"), "cloth/ground_truth/spot/001_mask.png")


def test_a_mask_that_is_missing_is_said_before_anything_runs(
    bench: Bench, definition: Path
) -> None:
    (definition.parent / "things/cloth/ground_truth/spot/001_mask.png").unlink()
    document = bench("clip")
    assert document["cells"] == []
    (failure,) = document["failed"]
    assert "cloth/test/spot: 1 of 4 anomalous images without a mask" in failure["error"]
    assert "001.png" in failure["error"]


def test_an_image_that_changes_between_runs_is_computed_again(
    bench: Bench, definition: Path, tmp_path: Path
) -> None:
    image = definition.parent / "things" / "bolt" / "test" / "good" / "001.bmp"
    picture = Image.open(image.with_suffix(".png"))
    image.with_suffix(".png").unlink()
    picture.save(image)
    first = bench("clip")
    before, size = image.read_bytes(), image.stat().st_size
    Image.fromarray(255 - np.asarray(picture)).save(image)
    assert image.stat().st_size == size  # only the content tells
    os.utime(image, ns=(0, 1))
    changed = bench("clip")
    assert changed["counters"]["cells_run"] == 2  # of the whole dataset: its fingerprint
    assert cells(changed) != cells(first)
    assert_same(cells(changed), cells(bench("clip", results=tmp_path / "fresh")))
    image.write_bytes(before)
    os.utime(image, ns=(0, 2))
    again = bench("clip")
    assert again["counters"]["cells_run"] == 0
    assert cells(again) == cells(first)


@pytest.mark.parametrize("death", [SystemExit(1), RuntimeError("codec"), MemoryError()], ids=repr)
def test_a_decoding_thread_that_dies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, death: BaseException
) -> None:
    real = loader.read_image

    def read_image(uri: str, *rest: Any, **named: Any) -> Image.Image:
        if uri.endswith("cloth/test/spot/001.png"):
            raise death
        return real(uri, *rest, **named)

    monkeypatch.setattr(loader, "read_image", read_image)
    cause = "out of memory" if isinstance(death, MemoryError) else type(death).__name__
    words = ("cloth/test/spot/001.png", f"decoding ended with {cause}")
    only_cloth_failed(bench("clip", overrides=["data.workers=2"]), *words)


# ------------------------------------------------------------------------- memory and the device
def test_no_memory_for_a_single_image_costs_one_method_one_category(bench: Bench) -> None:
    document = bench("starved,clip", overrides=["run.batch_size=4"])
    assert {("starved", "bolt"), ("clip", "bolt"), ("clip", "cloth")} == set(cells(document))
    (failure,) = document["failed"]
    assert failure["cell"]["method"] == "starved"
    assert "out of memory with a single image" in failure["error"]


class Device:
    """Stands before the encoder and fails as told: ``refuse(call number, images)``."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[int, int], Exception | None]
    ) -> None:
        self.calls = 0
        real = Backbone.encode_image

        def encode_image(
            backbone: Backbone, images: torch.Tensor, request: FeatureRequest
        ) -> ImageFeatures:
            self.calls += 1
            error = refuse(self.calls, len(images))
            if error is not None:
                raise error
            return real(backbone, images, request)

        monkeypatch.setattr(Backbone, "encode_image", encode_image)


def test_an_encoder_without_memory_takes_smaller_batches(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"overrides": ["run.batch_size=8"]}
    expected = bench("clip", results=tmp_path / "roomy", **options)
    Device(monkeypatch, lambda _, n: torch.OutOfMemoryError("out of memory") if n > 3 else None)
    document = bench("clip", **options)
    assert not document["failed"]
    assert_same(cells(document), cells(expected))
    assert min(document["counters"]["batch_sizes"]) <= 3


def test_an_encoder_without_memory_for_one_image(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device(monkeypatch, lambda *_: torch.OutOfMemoryError("out of memory"))
    document = bench("clip,winclip")
    assert document["cells"] == []
    assert len(document["failed"]) == 4
    assert all("out of memory with a single image" in f["error"] for f in document["failed"])


def test_a_device_that_fails_midway_loses_only_what_comes_after(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
    with monkeypatch.context() as patch:
        Device(patch, lambda call, _: broken if call > 2 else None)
        document = bench("clip", overrides=["run.batch_size=4"])
    only_cloth_failed(document, "clip: RuntimeError: CUDA error: unspecified launch failure")
    again = bench("clip", overrides=["run.batch_size=4"])
    assert not again["failed"]
    assert again["counters"]["cells_run"] == 1
