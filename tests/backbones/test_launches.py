"""How many kernels an encoder is: as many as it has blocks and taps, whatever its width and the
size of its images, so that a narrow one says what ViT-L/14@336 is at 518 pixels."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests import small_clip
from tests.fake_cuda import H200, Gpu, simulated
from zsad import backbones, registry
from zsad.backbones import Backbone
from zsad.backbones.batch_size import Portions
from zsad.backbones.engines.choice import Work, fusing_pays
from zsad.backbones.engines.compiled import Compiled
from zsad.backbones.engines.interface import Facts
from zsad.config import BackboneSettings
from zsad.method import feature_request
from zsad.scoring import encode
from zsad.types import EncoderVariant, FeatureRequest, Tap

BATCH, MOST, MOST_WITH_WINDOWS = 8, 500, 1300
SMALL = 84  # pixels
WINDOWS = FeatureRequest.of(Tap("cls"), Tap("window", 2), Tap("window", 3))
TOGETHER = ("filo", "faprompt", "kanoclip", "anomalyclip")
METHODS = [entry.name for entry in registry.select_methods("all")]


@pytest.fixture(scope="module")
def deep(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many blocks as ViT-L/14 has, narrow."""
    path = tmp_path_factory.mktemp("deep") / "clip.pt"
    return small_clip.write(recipe, path, vision_layers=24, text_layers=1)


def loaded(deep: Path, **options: Any) -> Backbone:
    return backbones.load(
        "file", weights=deep, image_size=SMALL, device="cuda", precision="bf16", **options
    )


def requests(backbone: Backbone) -> dict[str, list[FeatureRequest]]:
    """What methods ask an encoder for, by name, and four of them together."""
    found: dict[str, list[FeatureRequest]] = {}
    for name in METHODS:
        entry = registry.method(name)
        found[name] = [feature_request(entry.load()(entry.resolve(), backbone.info), 0)]
    found["together"] = [FeatureRequest.merge([found[name][0] for name in TOGETHER])]
    return found


def kernels(
    backbone: Backbone, gpu: Gpu, wanted: dict[str, list[FeatureRequest]]
) -> dict[str, int]:
    """Kernels of a batch by name, from its 8-bit values on the host to its taps."""
    size = backbone.info.image_size
    images = torch.zeros(BATCH, 3, size, size, dtype=torch.uint8).pin_memory()

    def encoded(request: FeatureRequest) -> None:
        gpu.clear()
        list(encode(backbone, images, request, Portions()))

    every = [request for one in wanted.values() for request in one]
    for request in {r.variant: r for r in every}.values():
        encoded(request)  # constants are made once
    found = {}
    for name, (request,) in wanted.items():
        if request.variant.image_size in (0, size):
            encoded(request)
            found[name] = gpu.launched
    return found


def within(found: dict[str, int]) -> None:
    for name, count in found.items():
        assert count <= (MOST_WITH_WINDOWS if name in ("winclip", "alfa") else MOST), (name, count)


def test_the_encoder_is_at_most_500_kernels_and_1300_with_windows(deep: Path) -> None:
    with simulated("cuda", values=False, memory=H200) as gpu, torch.no_grad():
        backbone = loaded(deep)
        found = kernels(backbone, gpu, requests(backbone))
    assert {"winclip", "alfa", "together"} < found.keys()
    assert len(found) >= len(METHODS) - 2
    within(found)


@pytest.mark.slow
def test_at_full_size_it_is_as_many(deep: Path) -> None:
    counts = []
    with simulated("cuda", values=False, memory=H200) as gpu, torch.no_grad():
        for backbone in (
            backbones.load(
                "vit-l-14-336", weights="random", image_size=518, device="cuda", precision="bf16"
            ),
            loaded(deep),
        ):
            counts.append(kernels(backbone, gpu, requests(backbone)))
    within(counts[0])
    windowed = {"winclip", "alfa"}  # a chunk of theirs holds as many positions as memory allows
    large, small = ({k: v for k, v in c.items() if k not in windowed} for c in counts)
    assert large == small


# ------------------------------------------------------------------------------- windows
def test_windows_are_few_large_launches_and_fewer_still_when_compiled(deep: Path) -> None:
    with simulated("cuda", values=False, memory=H200) as gpu, torch.no_grad():
        backbone = loaded(deep)
        encoder = backbone.image_encoder()
        images = torch.zeros(BATCH, 3, SMALL, SMALL, device="cuda")
        found = []
        graph = Compiled().graph(encoder, SMALL, sorted(WINDOWS.taps))
        for run in (lambda: backbone.encode_image(images, WINDOWS), lambda: graph(images)):
            run()
            gpu.clear()
            run()
            found.append(gpu.launched)
            assert not gpu.kernels["bmm"]  # rows that lie apart would be many small products
        fused = gpu.kernels["fused"]
        encoder.window_tokens = 320
        gpu.clear()
        backbone.encode_image(images, WINDOWS)
        small = gpu.launched
    whole, compiled = found
    one = 24 * 16  # kernels of a pass, however many sequences it has
    assert 3 * one < whole <= 3 * one + 60  # the image, and all its windows of either size
    # With 320 positions at once: 200 sequences of 5 in 4 chunks, 128 of 10 in 4.
    assert 6 * one < small - whole <= 6 * (one + 20)
    # Of every block two norms and an activation; the first norm is one for windows of either size.
    assert fused == 3 * 3 * 24 - 1
    assert compiled <= 0.65 * whole


def test_a_chunk_of_windows_follows_the_memory_and_the_precision() -> None:
    with simulated("cuda", values=False, memory=H200) as gpu:
        half = loaded_tokens("bf16")
        full = loaded_tokens("fp32")
        gpu.memory = 1 << 28
        little = loaded_tokens("bf16")
    assert half == 1 << 17
    assert little < full <= half


def loaded_tokens(precision: str) -> int:
    backbone = backbones.load("zsad-tiny", device="cuda", precision=precision)
    return backbone.image_encoder().window_tokens


# ------------------------------------------------------------------------------ compiled
def test_windows_are_compiled_once_for_all_blocks_sizes_and_batches(
    deep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **rest: whole(f, backend=counting, **rest))
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    options: dict[str, Any] = {"weights": deep, "image_size": 56}
    plain, compiled = (backbones.load("file", **options, compile=c) for c in (False, True))
    images = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    request = FeatureRequest.of(
        Tap("cls"), Tap("window", 2), Tap("window", 3), Tap("vv_proj", 24, 20)
    )
    for count in (3, 2, 1):
        found = compiled.encode_image(images[:count], request)
        wanted = plain.encode_image(images[:count], request)
        for tap, value in found.data.items():
            torch.testing.assert_close(value, wanted[tap], rtol=1e-4, atol=1e-5)
    assert compiled.engines.account(EncoderVariant())["name"] == "compile"
    assert 2 <= len(made) <= 4  # two functions, for one row and for any other number of them


@pytest.mark.parametrize(
    ("device", "precision", "pictures", "windows", "pays"),
    [
        ("cuda", "bf16", 5000, True, True),
        ("cuda", "bf16", 500, True, False),  # compiling takes longer
        ("cuda", "bf16", 5000, False, False),
        ("cuda", "fp32", 5000, True, False),
        ("cpu", "bf16", 5000, True, False),
    ],
)
def test_where_compiling_pays(
    device: str, precision: str, pictures: int, windows: bool, pays: bool
) -> None:
    work = Work(gmac=5980, depth=24, pictures=pictures, windows=windows)
    assert fusing_pays(precision, Facts(device=device), work) is pays


def test_it_is_said_once_where_compiling_pays(deep: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with simulated("cuda", values=False, memory=H200), torch.no_grad():
        backbone = loaded(deep)
        images = torch.zeros(1, 3, SMALL, SMALL, device="cuda")
        backbone.engines.pictures = 10**10
        for _ in range(2):
            backbone.encode_image(images, WINDOWS)
    said = [r.getMessage() for r in caplog.records if "backbone.compile=true" in r.getMessage()]
    assert len(said) == 1
    assert "cells of bf16-compile" in said[0]


def test_what_is_compiled_in_half_precision_is_another_column() -> None:
    assert BackboneSettings(precision="bf16", compile=True).figures == "bf16-compile"
    assert BackboneSettings(precision="fp32", compile=True).figures == "fp32"
