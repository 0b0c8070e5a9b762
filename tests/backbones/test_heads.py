"""Heads: whoever multiplies, the features and maps are torch's, and training sees torch alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zsad
from zsad.backbones import Backbone, load
from zsad.backbones.engines import heads, processor
from zsad.backbones.engines.heads import HeadEngine, tiles_pay
from zsad.backbones.engines.interface import Facts
from zsad.backbones.engines.packed import PackedLinear, works
from zsad.backbones.engines.tiled_convolution import Shape, TiledConvolution, convolution
from zsad.backbones.engines.verification import pictures

AMD = Facts(vendor="AuthenticAMD", avx512=True)
TINY = Shape((14, 14), (7, 7), 192, 256)
LARGE = Shape((37, 37), (7, 7), 1024, 768)
needs_packing = pytest.mark.skipif(not works(), reason="this torch has no packed linear layers")


@pytest.fixture(scope="module")
def given() -> tuple[Tensor, tuple[int, int], Tensor, Tensor]:
    """Patches, grid, weight and bias of one of FiLo's stages on `zsad-tiny`."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 196, 192, generator=generator)
    weight = torch.randn(256, 192, 7, 7, generator=generator) / 97
    return patches, (14, 14), weight, torch.randn(256, generator=generator)


@pytest.fixture
def engine(make_backbone: Callable[..., Backbone]) -> HeadEngine:
    """That of a backbone that expects many pictures."""
    backbone = make_backbone()
    backbone.engines.pictures = 1_000
    return HeadEngine(backbone)


@torch.no_grad()
def test_a_large_convolution_runs_in_tiles_and_says_so(engine: HeadEngine, given: Any) -> None:
    assert engine.account() == {}
    found, wanted = engine.convolve(*given), convolution(*given)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5
    assert not torch.equal(found, wanted)
    told = engine.account()
    assert told["head"] == "tiled convolution"
    assert 0 < told["head_error"] < 1e-5


def test_what_stays_in_torch(make_backbone: Callable[..., Backbone], given: Any) -> None:
    """Gradients, few pictures, `backbone.engine=torch`, another type, small kernels."""
    wanted = convolution(*given)
    backbone = make_backbone()
    engine = HeadEngine(backbone)
    with torch.no_grad():
        assert torch.equal(engine.convolve(*given), wanted)  # no picture is known to come
    backbone.engines.pictures = 1_000
    assert torch.equal(engine.convolve(*given), wanted)  # gradients are wanted
    with torch.no_grad():
        with backbone.engines.torch_unless_asked():
            assert torch.equal(engine.convolve(*given), wanted)
        patches, grid, weight, bias = (g.double() if torch.is_tensor(g) else g for g in given)
        assert torch.equal(
            engine.convolve(patches, grid, weight, bias), convolution(patches, grid, weight, bias)
        )
        small = given[2][..., :1, :1].contiguous()
        assert torch.equal(
            engine.convolve(given[0], grid, small, given[3]),
            convolution(given[0], grid, small, given[3]),
        )
    assert engine.account() == {}


def test_tiles_pay_from_facts_alone() -> None:
    assert not tiles_pay(LARGE, 3)
    assert tiles_pay(LARGE, 4)
    assert not tiles_pay(TINY, 10)
    assert tiles_pay(TINY, 32)
    assert not tiles_pay(Shape((37, 37), (1, 3), 64, 64), 10_000)


@torch.no_grad()
def test_wrong_tiles_are_refused_in_one_line(
    engine: HeadEngine, given: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    class Damaged(TiledConvolution):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self.spectra[3, 7, 5] += 1  # one frequency of one channel

    monkeypatch.setattr(heads, "TiledConvolution", Damaged)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(engine.convolve(*given), convolution(*given))
    (line,) = caplog.records
    assert "runs in torch, not in tiles" in line.getMessage()
    assert engine.account() == {}


@torch.no_grad()
def test_another_state_has_other_tiles(engine: HeadEngine, given: Any) -> None:
    patches, grid, weight, bias = given
    weight = weight.clone()
    before = engine.convolve(patches, grid, weight, bias)
    weight.mul_(2)
    after = engine.convolve(patches, grid, weight, bias)
    torch.testing.assert_close(after - bias, 2 * (before - bias), rtol=1e-4, atol=1e-4)


@needs_packing
def test_text_runs_on_packed_weights_where_torch_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "facts", lambda device="cpu": AMD)
    texts = ["a photo of a bottle", "a nut"]
    backbone = load("zsad-tiny", engine="auto")
    engine, encoder = HeadEngine(backbone), backbone.text_encoder()
    with torch.no_grad():
        plain = encoder.encode_texts(texts)
        with backbone.engines.torch_unless_asked(), engine.active():
            assert torch.equal(encoder.encode_texts(texts), plain)
        assert engine.account() == {}
        with engine.active():
            found = encoder.encode_texts(texts)
        assert torch.equal(encoder.encode_texts(texts), plain)
    assert engine.account()["head"] == "packed text"
    assert 0 < float((found - plain).norm() / plain.norm()) < 1e-5


@needs_packing
@torch.no_grad()
def test_a_wrong_packed_weight_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from zsad.backbones.engines import packed

    right = packed.pack
    monkeypatch.setattr(packed, "pack", lambda weight: right(weight * 1.001))
    x, weight = torch.randn(7, 64), torch.randn(32, 64)
    linear = PackedLinear(on=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(linear(x, weight, None), torch.nn.functional.linear(x, weight))
    assert len(caplog.records) == 1
    assert linear.error is None


def test_filo_is_the_same_whoever_convolves() -> None:
    """Score, map and reasons of three pictures; the prediction says who did it."""
    images = pictures(224)
    one = zsad.load_method("filo", "zsad-tiny", untrained=True, overrides=["filo.grounding=none"])
    found = {}
    for count in (3, 100):  # pictures that are known to come
        one.backbone.engines.pictures = count
        found[count] = one.predict_tensor(images, "metal nut")
        tiled = "tiled convolution" in one.scorer.heads.account().get("head", "")
        assert tiled == (count == 100)
    for right, other in zip(found[3], found[100]):
        assert other.image_score == pytest.approx(right.image_score, abs=1e-5)
        assert right.values is not None
        assert other.values is not None
        np.testing.assert_allclose(other.values, right.values, atol=1e-4)
        assert not np.array_equal(other.values, right.values)
        assert [r.text for r in other.explanations] == [r.text for r in right.explanations]
