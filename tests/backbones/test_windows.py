"""Window passes against their definition: a full pass in which all other keys are masked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone, windows
from zsad.backbones.clip_vit import Entered
from zsad.backbones.windows import window_indices
from zsad.types import EncoderVariant, FeatureRequest, Tap

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def encode(backbone: Backbone, images: Tensor, *taps: Tap) -> dict[Tap, Tensor]:
    return backbone.encode_image(images, FeatureRequest.of(*taps)).data


def test_window_positions_by_hand() -> None:
    assert window_indices((3, 3), 2).tolist() == [
        [0, 1, 2, 4, 5],
        [0, 2, 3, 5, 6],
        [0, 4, 5, 7, 8],
        [0, 5, 6, 8, 9],
    ]
    assert window_indices((2, 3), 2).tolist() == [[0, 1, 2, 4, 5], [0, 2, 3, 5, 6]]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_window_is_the_full_pass_with_all_other_keys_masked(
    backbone: Backbone, images: Tensor, k: int
) -> None:
    model: Any = backbone.model
    visual = model.visual
    got = encode(backbone, images, Tap("window", k), Tap("window_values", k))
    for m, index in enumerate(window_indices((5, 5), k)):
        hidden = torch.full((26, 26), float("-inf"))
        hidden[:, index] = 0.0
        x = visual._embeds(images)
        for block in visual.transformer.resblocks:
            before, x = x, block(x, attn_mask=hidden)
        expected = visual.ln_post(x[:, 0]) @ visual.proj
        torch.testing.assert_close(got[Tap("window", k)][:, m], expected, **CLOSE)
        y = block.ln_1(before)
        v = torch.nn.functional.linear(
            y, block.attn.in_proj_weight[256:], block.attn.in_proj_bias[256:]
        )
        local = visual.ln_post(block.attn.out_proj(v)) @ visual.proj
        torch.testing.assert_close(got[Tap("window_values", k)][:, m], local[:, index], **CLOSE)


def test_what_comes_before_attention_is_made_once(
    backbone: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the image's 26 tokens, not of the 16 x 5 of its windows: only other products follow."""
    seen: list[torch.Size] = []
    encoder = backbone.image_encoder()
    first = encoder.blocks[0]
    product = first.product

    def noted(x: Tensor, part: Any, *rows: Any) -> Tensor:
        seen.extend([x.shape] if part == "in" else [])
        return product(x, part, *rows)

    monkeypatch.setattr(first, "product", noted)
    pre, grid = encoder.embed(images)
    with torch.no_grad():
        found = windows.encode_windows(encoder, pre, grid, [Tap("window", 2), Tap("window", 3)])
        index = window_indices(grid, 2)
        alone = encoder.run(pre[:, index[3]], [Tap("cls")])[Tap("cls")]
    assert seen == [pre.shape, (len(pre), 5, pre.shape[-1])]
    torch.testing.assert_close(found[Tap("window", 2)][:, 3], alone, **CLOSE)


def test_the_largest_window_is_the_full_image(backbone: Backbone, images: Tensor) -> None:
    got = encode(backbone, images, Tap("cls"), Tap("window", 5), Tap("window_pixels", 5))
    torch.testing.assert_close(got[Tap("window", 5)][:, 0], got[Tap("cls")], **CLOSE)
    torch.testing.assert_close(got[Tap("window_pixels", 5)][:, 0], got[Tap("cls")], **CLOSE)


def test_window_pixels_equal_images_with_the_outside_zeroed(
    backbone: Backbone, images: Tensor
) -> None:
    model: Any = backbone.model
    got = encode(backbone, images, Tap("window_pixels", 3))[Tap("window_pixels", 3)]
    for m in range(9):
        top, left = (m // 3) * 8, (m % 3) * 8
        masked = torch.zeros_like(images)
        part = (..., slice(top, top + 24), slice(left, left + 24))
        masked[part] = images[part]
        torch.testing.assert_close(got[:, m], model.encode_image(masked), **CLOSE)


def test_chunking_changes_nothing_and_bounds_the_sequences(
    backbone: Backbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(backbone, images, Tap("window", 2))[Tap("window", 2)]
    encoder = backbone.image_encoder(EncoderVariant())
    sizes: list[int] = []
    run = encoder.run
    monkeypatch.setattr(encoder, "window_tokens", 35)

    def noted(tokens: Tensor | Entered, taps: Any) -> dict[Tap, Tensor]:
        states = tokens.x if isinstance(tokens, Entered) else tokens
        sizes.append(states.shape[0] * states.shape[1])
        return run(tokens, taps)

    monkeypatch.setattr(encoder, "run", noted)
    backbone.counters.reset()
    parts = encode(backbone, images, Tap("window", 2))[Tap("window", 2)]
    torch.testing.assert_close(parts, whole, **CLOSE)
    assert backbone.counters.windows == 3 * 16
    assert max(sizes[1:]) <= 35  # the first run is the (empty) pass over the image
