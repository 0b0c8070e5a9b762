"""Texts that are longer than what CLIP reads are named, and quoted as far as they were read."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from zsad.backbones import Backbone

LONG = "scratched metal nut " * 40


def test_a_short_text_is_read_whole(backbone: Backbone) -> None:
    for text in ("", "metal nut", "a photo of a metal nut with a scratch " * 3):
        assert backbone.read_part(text) == text


def test_what_is_quoted_of_a_long_text_is_what_counts(
    make_backbone: Callable[..., Backbone], caplog: pytest.LogCaptureFixture
) -> None:
    backbone = make_backbone()  # one that has not said it yet
    read = backbone.read_part(LONG)
    assert read.endswith(" ...")
    assert len(read) < len(LONG)
    encoder = backbone.text_encoder()
    with caplog.at_level(logging.WARNING):
        whole = encoder.encode_texts([LONG])
        encoder.encode_texts([LONG + " and more"])
    assert caplog.text.count("tokens and is read as far as") == 1
    assert "shorten the class name" in caplog.text
    quoted = encoder.encode_texts([read.removesuffix(" ...")])
    assert torch.allclose(whole, quoted, atol=1e-5)
