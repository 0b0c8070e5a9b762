"""Options that change speed alone: a compiled encoder gives the same features."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, load
from zsad.errors import RequestError
from zsad.training.feature_store import space_of
from zsad.types import EncoderVariant, FeatureRequest, Tap

TAPS = FeatureRequest.of(
    Tap("cls"), Tap("tokens", 2), Tap("vv_proj", 5, 3), Tap("window", 2), Tap("values_proj", 5)
)

FEW = FeatureRequest.of(Tap("cls"), Tap("vv_proj", 5, 5))  # compiling takes seconds a block


def test_compiled_encoders_give_the_same_features(
    backbone: Backbone,
    images: Tensor,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The graph is captured and run as compiled, but without a C++ compiler."""
    calls = 0

    def counting(graph: Any, inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    compiled = load("file", weights=files["plain.pt"], compile=True)
    expected = backbone.encode_image(images, FEW)
    for count in (3, 1):  # another batch size is no other graph than the dynamic one
        found = compiled.encode_image(images[:count], FEW)
        for tap, value in found.data.items():
            torch.testing.assert_close(value, expected[tap][:count], rtol=1e-5, atol=1e-5)
    assert 1 <= calls <= 4  # two functions, for one row and for more, never one for every size
    assert compiled.engines.account(EncoderVariant())["name"] == "compile"


def test_a_compiler_that_fails_leaves_the_encoder_in_torch(
    backbone: Backbone,
    images: Tensor,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setenv("ZSAD_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=failing))
    compiled = load("file", weights=files["plain.pt"], compile=True)
    found = compiled.encode_image(images, FEW)
    assert compiled.engines.account(EncoderVariant())["name"] == "torch"
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert "the encoder runs in torch, not on compile: " in warned[0]
    torch.testing.assert_close(found[Tap("cls")], backbone.encode_image(images, FEW)[Tap("cls")])


def test_the_activation_of_a_file_can_be_stated(
    backbone: Backbone, images: Tensor, files: dict[str, Path]
) -> None:
    """A state dict does not tell; a LAION model in OpenAI's naming needs the exact one."""
    stated = load("file", weights=files["plain.pt"], activation="gelu")
    assert (backbone.info.activation, stated.info.activation) == ("quick_gelu", "gelu")
    variant = EncoderVariant(activation="gelu")
    expected = backbone.encode_image(images, FeatureRequest(TAPS.taps, variant))
    for tap, value in stated.encode_image(images, TAPS).data.items():
        torch.testing.assert_close(value, expected[tap])
    texts = ["a photo of a bottle"]
    torch.testing.assert_close(
        stated.text_encoder().encode_texts(texts),
        backbone.text_encoder(variant).encode_texts(texts),
    )
    assert space_of(stated.info, EncoderVariant()) != space_of(backbone.info, EncoderVariant())


def test_a_named_backbone_knows_its_own_activation() -> None:
    with pytest.raises(RequestError, match="backbone 'zsad-tiny' knows its own"):
        load("zsad-tiny", activation="gelu")
    with pytest.raises(RequestError, match=r"backbone\.activation=relu: choose one of auto"):
        load("zsad-tiny", activation="relu")
