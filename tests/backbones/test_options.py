"""Options that change speed alone: compiled parts give the same features."""

from __future__ import annotations

import functools
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


def test_compiled_encoders_give_the_same_features(
    backbone: Backbone, images: Tensor, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is captured and run as compiled, but without a C++ compiler."""
    calls = 0

    def counting(graph: Any, inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    compiled = load("file", weights=files["plain.pt"], compile=True)
    expected = backbone.encode_image(images, TAPS)
    for count in (3, 1):  # another batch size is no other graph than the dynamic one
        found = compiled.encode_image(images[:count], TAPS)
        for tap, value in found.data.items():
            torch.testing.assert_close(value, expected[tap][:count], rtol=1e-5, atol=1e-5)
    assert calls >= 1


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
