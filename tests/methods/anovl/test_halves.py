"""AnoVL's script for VisA: two squares of a picture, their joined maps, and its own adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from zsad import registry
from zsad.backbones import Backbone
from zsad.data.transforms import Preprocess
from zsad.errors import DataError, RequestError
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.tiles import Framing
from zsad.method import new_method
from zsad.methods.anovl.adapter import Start
from zsad.methods.anovl.config import Adapter
from zsad.methods.anovl.halves import adapt_halves, in_square, joined

SIDE, WIDE = 48, 64  # of the small backbone; a picture that needs no resizing


def picture(width: int = WIDE, height: int = SIDE, seed: int = 3) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


# ------------------------------------------------------------------------ squares and their maps
def test_squares_cover_the_picture() -> None:
    how = Preprocess(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", halves=True)
    wide = picture(22, 16)
    left, right, shift = how.squares(wide)
    # As the script: the short side becomes 8, the long one floor(8 * 22 / 16) = 11.
    whole = torch.from_numpy(np.array(wide.resize((11, 8), Image.Resampling.BILINEAR)) / 255)
    torch.testing.assert_close(left, whole.permute(2, 0, 1)[..., :8].float())
    torch.testing.assert_close(right, whole.permute(2, 0, 1)[..., 3:].float())
    assert shift == 3 / 8
    same = how.squares(picture(16, 16))
    assert same.shift == 0
    assert torch.equal(same.left, same.right)


@pytest.mark.parametrize("size", [(10, 16), (33, 16)])
def test_pictures_that_two_squares_do_not_cover_are_refused(size: tuple[int, int]) -> None:
    how = Preprocess(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), halves=True)
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]} pixels: cannot be cut"):
        how.squares(picture(*size))


@pytest.mark.parametrize("shift", [0, 2, 5])
def test_joined_maps_are_the_mean_of_what_saw_a_column(shift: int) -> None:
    left, right = torch.rand(2, 3, 4, 5)
    found = joined(left, right, shift)
    assert found.shape == (3, 4, 5 + shift)
    for column in range(5 + shift):
        seen = [left[..., column]] if column < 5 else []
        seen += [right[..., column - shift]] if column >= shift else []
        torch.testing.assert_close(found[..., column], torch.stack(seen).mean(0))
    with pytest.raises(ValueError, match="shift 6"):
        joined(left, right, 6)


def test_a_map_in_the_square_keeps_places() -> None:
    """What lies in the middle of the picture lies in the middle of its map."""
    maps = torch.zeros(2, 4, 4)
    maps[0, :, 3], maps[1, :, 0] = 1.0, 1.0  # both see the middle of a picture of 2 : 1
    found = in_square(maps, 16, 16)
    assert found.shape == (16, 16)
    assert found[:, 7:9].min() > found[:, [0, 15]].max() + 0.5
    torch.testing.assert_close(found, found.flip(1))


# ------------------------------------------------------------------------------------ the adapter
def test_the_adapter_against_its_definition() -> None:
    """Two steps, written out: cosines are enlarged and joined, then come softmax and loss."""
    torch.manual_seed(0)
    side, shift, width, length = 12, 5, 6, 9
    patches, pair = torch.randn(2, length, width), F.normalize(torch.randn(2, width), dim=-1)
    layer = torch.nn.Linear(width, width)
    first = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().clone()
    noises = 0.3 * torch.randn(2, 2 * length, width)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05)

    def tokens(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x + 0.5 * layer(x / x.norm(dim=-1, keepdim=True))

    def probability(x: torch.Tensor) -> torch.Tensor:
        unit = tokens(x) / tokens(x).norm(dim=-1, keepdim=True)
        cosines = (unit @ pair.T).permute(0, 2, 1).reshape(2, 2, 3, 3)
        large = F.interpolate(cosines, size=side, mode="bilinear", align_corners=True)
        total, count = torch.zeros(2, side, side + shift), torch.zeros(side + shift)
        for i, start in enumerate((0, shift)):
            total = total + F.pad(large[i], (start, shift - start))
            count = count + F.pad(torch.ones(side), (start, shift - start))
        return (total / count).softmax(0)

    losses = []
    for noise in noises:
        clean = probability(patches)
        noisy = probability(patches + noise.reshape(2, length, width))
        loss = -(clean * clean.log()).sum(0).mean()
        loss = loss + 0.5 * (-noisy[1].log() - clean[0].log()).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    found = adapt_halves(
        patches, pair, (3, 3), side, shift, Adapter(lr=0.05, steps=2), Start(first, noises)
    )
    torch.testing.assert_close(found.losses[0], torch.tensor(losses), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.patches, tokens(patches).detach(), atol=1e-5, rtol=1e-4)
    assert float(found.moments["step"]) == 2
    assert not found.patches.requires_grad


# ---------------------------------------------------------------------------- the public route
def loaded(backbone: Backbone, **overrides: Any) -> LoadedMethod:
    values = {"encoder": {"resize": "bilinear"}, "vv_last": 12, **overrides}
    entry = registry.method("anovl")
    method = new_method(entry, entry.resolve(("test", values)), backbone.info)
    return LoadedMethod(method, backbone, torch.device("cpu"))


def test_a_picture_against_its_two_squares(backbone: Backbone) -> None:
    whole = picture()
    squares = [whole.crop((x, 0, x + SIDE, SIDE)) for x in (0, WIDE - SIDE)]
    method = loaded(backbone, script="visa")
    found = method.predict(whole, "nut")[0]
    single = loaded(backbone).predict(squares, "nut", explanations=0)
    expected = sum(p.image_score for p in single) / 2
    assert found.image_score == pytest.approx(expected, abs=1e-6)
    left, right = (torch.from_numpy(p.values) for p in single)
    square = F.interpolate(
        joined(left, right, WIDE - SIDE)[None, None], size=SIDE, mode="bilinear"
    )[0, 0]
    assert found.values is not None
    torch.testing.assert_close(torch.from_numpy(found.values), square, atol=1e-5, rtol=1e-5)
    assert found.anomaly_map.shape == (SIDE, WIDE)
    assert found.reasons


def test_the_adapter_carries_its_state(backbone: Backbone) -> None:
    adapter = {"enabled": True, "state": "kept"}
    method = loaded(backbone, script="visa", adapter=adapter)
    first, second = method.predict([picture(), picture()], "nut", explanations=0)
    # The image score does not read the adapter, whose weights and moments differ.
    assert first.image_score == pytest.approx(second.image_score, abs=1e-6)
    assert np.abs(first.anomaly_map - second.anomaly_map).max() > 1e-6


def test_what_it_cannot_see_is_refused(backbone: Backbone) -> None:
    method = loaded(backbone, script="visa")
    with pytest.raises(DataError, match="30 x 60 pixels"):
        method.predict(picture(30, 60), "nut")
    with pytest.raises(RequestError, match="halves, or use predict"):
        method.predict_tensor(torch.zeros(1, 3, SIDE, SIDE), "nut")
    with pytest.raises(RequestError, match="keep-aspect"):
        LoadedMethod(
            method.method, backbone, torch.device("cpu"), framing=Framing.of(None, keep_aspect=True)
        )


# --------------------------------------------------------------------- which script is run where
def test_the_target_chooses_the_script_and_the_identity() -> None:
    released = registry.method("anovl").resolve(("test", {"preset": "released"}))
    assert released.script == "target"
    assert released.for_target("visa") == replace(released, script="visa")
    for other in ("mvtec", "", "my-visa"):
        assert released.for_target(other) == replace(released, script="mvtec")
    default = registry.method("anovl").resolve()
    assert default.for_target("visa") == default
