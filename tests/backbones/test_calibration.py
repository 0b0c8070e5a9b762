"""What 8-bit ranges are measured on, once for a backbone, and how what is kept of it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsad.backbones import Backbone
from zsad.backbones.blocks import PARTS
from zsad.backbones.clip_vit import ImageEncoder
from zsad.backbones.engines.calibration import BITS, FILE, Calibration, measure, of_backbone
from zsad.backbones.engines.interface import Examples
from zsad.backbones.engines.quantised import Input, place
from zsad.data.calibration import EXAMPLES
from zsad.errors import ZsadError
from zsad.types import BackboneInfo, EncoderVariant

OF = {"dataset": "drawn", "group": "train", "pictures": 3}


@pytest.fixture
def encoder(backbone: Backbone) -> ImageEncoder:
    return backbone.image_encoder(EncoderVariant(image_size=40))


class Shown:
    """Hands out three pictures, and counts how often it is asked."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.calls = images, 0

    def __call__(self, info: BackboneInfo, variant: EncoderVariant) -> Iterator[Tensor]:
        assert variant.image_size == 40  # of the position table, whatever the request's
        self.calls += 1
        return iter(self.images.split(1))


@pytest.fixture
def shown(images: Tensor) -> Shown:
    return Shown(images)


@pytest.fixture
def examples(shown: Shown) -> Examples:
    return Examples(OF, lambda: "by nobody", shown)


def test_ranges_hold_what_layers_are_given(encoder: ImageEncoder, images: Tensor) -> None:
    """The input of the first block's layers, computed here by hand, fills its range."""
    found = measure(encoder, images.split(1))
    assert found.keys() == {place(l, p) for l in range(1, encoder.depth + 1) for p in PARTS}
    block = encoder.blocks[0]
    with torch.no_grad():
        x = encoder.visual.ln_pre(encoder.embed(images)[0])
        normed = block.norm(x)
        (v,) = block.project_in(normed, "v")
    shrunk = normed / found["1.in"].factors
    for name, value in (("1.in", shrunk), ("1.values", v)):
        low, high = (float(t) for t in value.aminmax())
        assert found[name].low <= low < 0 < high <= found[name].high
        assert found[name].high - found[name].low <= 1.2 * (high - low)  # windows reach farther
    for given in found.values():
        for end in (given.low, given.high):
            assert abs(end) * 2**BITS % 2.0 ** (torch.tensor(abs(end)).log2().floor() + 1) == 0
        assert 0 <= given.zero <= 255
        assert abs(given.step * given.zero + given.low) <= given.step


def test_channels_that_stand_out_are_divided_by_powers_of_two(
    make_backbone: Callable[..., Backbone], clip_state: dict[str, Tensor], images: Tensor
) -> None:
    """A channel 16 times as large whose weights are 16 times as small: the same function."""
    norm, weight = (f"visual.transformer.resblocks.0.{n}" for n in ("ln_1", "attn.in_proj_weight"))
    change = {n: clip_state[n].clone() for n in (f"{norm}.weight", f"{norm}.bias", weight)}
    change[f"{norm}.weight"][7] *= 16
    change[f"{norm}.bias"][7] *= 16
    change[weight][:, 7] /= 16
    variant = EncoderVariant(image_size=40)
    plain = measure(make_backbone().image_encoder(variant), images.split(1))
    changed = measure(make_backbone(change=change).image_encoder(variant), images.split(1))
    wanted = list(plain["1.in"].shifts)
    wanted[7] += 4
    assert changed["1.in"] == Input(plain["1.in"].low, plain["1.in"].high, tuple(wanted))
    assert {n: v for n, v in changed.items() if n != "1.in"} == {
        n: v for n, v in plain.items() if n != "1.in"
    }


def test_what_cannot_be_measured_is_said(encoder: ImageEncoder, images: Tensor) -> None:
    with pytest.raises(ZsadError, match="int8: there is no picture to calibrate on"):
        measure(encoder, [])
    with pytest.raises(ZsadError, match=r"activations before linear layer 1\.in are not finite"):
        measure(encoder, [images[:1] * torch.nan])


def of(
    encoder: ImageEncoder, info: BackboneInfo, examples: Examples, folder: Path, source: str = "s"
) -> Calibration:
    return of_backbone(encoder, info, examples, folder, source)


def test_a_backbone_is_calibrated_once(
    encoder: ImageEncoder, backbone: Backbone, examples: Examples, shown: Shown, tmp_path: Path
) -> None:
    info = backbone.info
    first = of(encoder, info, examples, tmp_path)
    assert of(encoder, info, examples, tmp_path) == first
    other_size = backbone.image_encoder(EncoderVariant(image_size=56, pos_interp="bilinear"))
    assert of(other_size, replace(info, image_size=56), examples, tmp_path) == first
    assert shown.calls == 1
    assert first.account == {**OF, "image_size": 40, "recipe": 1, "digest": first.digest}


@pytest.mark.parametrize("what", ["weights", "activation", "input", "source", "pictures"])
def test_what_ranges_depend_on_has_them_measured_anew(
    what: str, encoder: ImageEncoder, backbone: Backbone, examples: Examples, tmp_path: Path
) -> None:
    info, source = backbone.info, "s"
    of(encoder, info, examples, tmp_path)
    if what == "weights":
        info = replace(info, weights_sha256="other")
    elif what == "activation":
        encoder = backbone.image_encoder(EncoderVariant(image_size=40, activation="gelu"))
    elif what == "input":
        encoder = backbone.image_encoder(EncoderVariant(image_size=40, input="unit"))
    elif what == "source":
        source = "other"
    else:
        examples = replace(examples, of={**OF, "pictures": 2})
    before = len(list(tmp_path.glob("*/ranges.json")))
    of(encoder, info, examples, tmp_path, source)
    assert len(list(tmp_path.glob("*/ranges.json"))) == before + 1


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-9])


def other_ranges(path: Path) -> None:
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "1.in": [-9.0, 9.0, []]}))


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, other_ranges, gone])
def test_damaged_ranges_are_measured_anew(
    damage: Callable[[Path], None],
    encoder: ImageEncoder,
    backbone: Backbone,
    examples: Examples,
    shown: Shown,
    tmp_path: Path,
) -> None:
    first = of(encoder, backbone.info, examples, tmp_path)
    (kept,) = tmp_path.glob(f"*/{FILE}")
    damage(kept)
    assert of(encoder, backbone.info, examples, tmp_path) == first
    assert shown.calls == 2
    assert of(encoder, backbone.info, examples, tmp_path) == first
    assert shown.calls == 2  # the new ones are kept


def test_the_digest_is_of_the_ranges(backbone: Backbone) -> None:
    one = Calibration({"1.in": Input(-1.0, 2.0, (0, 1))}, OF)
    assert one.digest == Calibration({"1.in": Input(-1.0, 2.0, (0, 1))}, {}).digest
    others: list[Any] = [(-1.0, 2.0, (1, 1)), (-1.0, 2.5, (0, 1))]
    assert len({one.digest, *(Calibration({"1.in": Input(*o)}, OF).digest for o in others)}) == 3


def test_the_pictures_are_those_that_were_said(backbone: Backbone) -> None:
    """Read as the dataset's own index lists them, so that none of them is ever evaluated."""
    from zsad.data import calibration, splits
    from zsad.data.index import load_index

    index = load_index("synthetic")
    training = {s.image for s in splits.auxiliary(index, "train")}
    evaluated = {s.image for own in splits.evaluated(index, 0).values() for s in own}
    chosen = calibration.addresses()
    assert len(set(chosen)) == len(chosen) == EXAMPLES.of["pictures"]
    assert set(chosen) <= training
    assert not set(chosen) & evaluated
    shown = list(EXAMPLES.images(backbone.info, EncoderVariant(image_size=40)))[:2]
    again = list(EXAMPLES.images(backbone.info, EncoderVariant(image_size=40)))[:2]
    assert [s.shape for s in shown] == [(1, 3, 40, 40)] * 2
    assert all(torch.equal(a, b) for a, b in zip(shown, again))
    assert EXAMPLES.drawn_by() == EXAMPLES.drawn_by()
