"""Training pictures changed at random, their masks along with them.

A changed picture is a sample of its own, whose URI says which picture it is made of and what is
done to it: it can be read again at any time, and a training that goes on reads the same.  No torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

from zsad.config.method_config import MethodConfig
from zsad.data.described import address, defects, description, fields, original
from zsad.data.images import read_image, register_reader
from zsad.data.mosaic import MosaicTrain
from zsad.types import Sample

SCHEME = "augmented"
FIELDS = ("image", "mask", "crop", "extra_masks", "mask_threshold", "bits", "ignore")


@dataclass(frozen=True)
class Change:
    """What is done to a picture, in this order; what moves pixels is done to its mask, too.

    ``crop_seed``: draws the part that is kept, as torchvision's ``RandomResizedCrop`` does: 8 to
    100 % of the area, at proportions of 3 : 4 to 4 : 3; 0: all of it.  ``turn``: degrees,
    counter-clockwise; ``shift``: to the right and down, fractions of the sides; ``quarters``:
    quarter turns; ``flips``: left and right, top and bottom; ``border``: what comes in from
    outside, the picture's mirror image or a ``colour``.  ``brightness``, ``contrast`` and
    ``saturation``: factors; ``hue``: of the whole circle.  ``noise``: deviation in grey levels,
    drawn with ``noise_seed``.  ``blur``: sigma of a Gaussian in pixels, or of a ``box`` the radius.
    """

    crop_seed: int = 0
    turn: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    quarters: int = 0
    flips: tuple[bool, bool] = (False, False)
    border: Literal["mirror", "colour"] = "mirror"
    colour: tuple[int, int, int] = (0, 0, 0)
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0
    blur: float = 0.0
    box: bool = False

    def moved(self, picture: Image.Image, *, mask: bool = False) -> Image.Image:
        """Move the pixels of a picture; outside of a mask nothing is anomalous where the border is
        a colour."""
        how = Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR
        if self.crop_seed:
            picture = picture.crop(_kept(picture.size, random.Random(self.crop_seed)))
        if self.turn or self.shift != (0.0, 0.0):
            picture = self._turned(picture, how, mask)
        for _ in range(self.quarters % 4):
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        for flip, way in zip(
            self.flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
        ):
            picture = picture.transpose(way) if flip else picture
        return picture

    def _turned(self, picture: Image.Image, how: Image.Resampling, mask: bool) -> Image.Image:
        width, height = picture.size
        shift = (round(self.shift[0] * width), round(self.shift[1] * height))
        if self.border == "colour":
            fill = 0 if mask else self.colour
            return picture.rotate(self.turn, how, translate=shift, fillcolor=fill)
        reach = (min(height - 1, height // 2), min(width - 1, width // 2))
        sides = [(r, r) for r in reach] + [(0, 0)] * (np.asarray(picture).ndim - 2)
        wide = Image.fromarray(np.pad(np.asarray(picture), sides, mode="reflect"))
        turned = wide.rotate(self.turn, how, translate=shift)
        return turned.crop((reach[1], reach[0], reach[1] + width, reach[0] + height))

    def toned(self, picture: Image.Image) -> Image.Image:
        """Change the colours of an RGB picture."""
        for factor, kind in (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.saturation, ImageEnhance.Color),
        ):
            picture = kind(picture).enhance(factor) if factor != 1.0 else picture
        if self.hue:
            hue, rest, value = picture.convert("HSV").split()
            hue = ImageChops.add_modulo(hue, Image.new("L", hue.size, round(self.hue * 256) % 256))
            picture = Image.merge("HSV", (hue, rest, value)).convert("RGB")
        if self.noise:
            values = np.asarray(picture, np.float32)
            drawn = np.random.default_rng(self.noise_seed).normal(0, self.noise, values.shape)
            picture = Image.fromarray((values + drawn).round().clip(0, 255).astype(np.uint8))
        if self.blur:
            kind_of = ImageFilter.BoxBlur if self.box else ImageFilter.GaussianBlur
            picture = picture.filter(kind_of(self.blur))
        return picture


def _kept(size: tuple[int, int], draw: random.Random) -> tuple[int, int, int, int]:
    """Draw the part of a picture of ``size`` that is kept: left, top, right, bottom in pixels."""
    width, height = size
    for _ in range(10):
        area = width * height * draw.uniform(0.08, 1.0)
        ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
    # The middle, as large as the proportions allow.
    w, h = min(width, round(height * 4 / 3)), min(height, round(width / (3 / 4)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop_and_flip(draw: random.Random) -> Change:
    """Draw what CoOp and CoCoOp do to every training picture: a part of it that is enlarged to the
    whole, mirrored with probability 0.5."""
    return Change(crop_seed=draw.randrange(1, 1 << 31), flips=(draw.random() < 0.5, False))


def changed(sample: Sample, change: Change, uid: str) -> Sample:
    """Describe a changed picture as a sample."""
    held = {name: value for name in FIELDS if (value := getattr(sample, name))}
    # An epoch has as many of them as pictures, so what is as usual is not told.
    unusual = {n: v for n, v in asdict(change).items() if v != getattr(Change, n)}
    told = json.dumps({"of": held, "change": unusual}, separators=(",", ":"))
    return dataclasses.replace(
        sample,
        image=address(SCHEME, "image", told),
        mask=address(SCHEME, "mask", told) if sample.mask is not None else None,
        crop=None,
        extra_masks=(),
        mask_threshold=0,
        bits=0,
        ignore=None,
        uid=uid,
    )


def each(
    samples: Sequence[Sample], drawn: Callable[[random.Random], Change], seed: int, key: str
) -> list[Sample]:
    """Return every sample changed as ``drawn`` says, in order: a function of names and seeds.

    ``key`` names phase and epoch.
    """
    return [
        changed(s, drawn(random.Random(f"{seed}/{key}/{s.uid}")), f"augmented/{key}/{i}/{s.uid}")
        for i, s in enumerate(samples)
    ]


def ordered(samples: Sequence[Sample], seed: int, key: str) -> list[Sample]:
    """Return the samples shuffled: a function of names and seeds.  ``key`` as in :func:`each`."""
    chosen = sorted(samples, key=lambda s: (s.category, s.uid))
    random.Random(f"order/{seed}/{key}").shuffle(chosen)
    return chosen


class InspectedTrain(MosaicTrain, Protocol):
    """``train.*`` of a method that mixes mosaics in, and may change every picture."""

    @property
    def augment(self) -> Literal["none", "inspection"]: ...


class InspectedConfig(MethodConfig):
    """What :class:`zsad.data.mixed_training.InspectedTraining` reads; sub-classes declare the
    keys."""

    train: InspectedTrain


def inspected(
    samples: Sequence[Sample],
    mixed: Sequence[Sample] | None,
    how: Literal["none", "inspection"],
    seed: int,
    key: str,
) -> Sequence[Sample] | None:
    """Return the samples of an epoch, each changed by :func:`inspection` where ``how`` says so.

    ``mixed``: the epoch as mosaics have left it; None: the samples as they are, which are shuffled
    if they are changed, and which None stands for if they are not.
    """
    if how == "none":
        return mixed
    return each(ordered(samples, seed, key) if mixed is None else mixed, inspection, seed, key)


def inspection(draw: random.Random) -> Change:
    """Draw what scripts of prompt learners do to every picture, each with probability 0.5:
    turn by up to 30 degrees, quarter turns, brightness and contrast by up to 0.2, noise of variance
    10 to 50, and one of box blur, colours and Gaussian blur (albumentations' defaults)."""

    def chance() -> bool:
        return draw.random() < 0.5

    tone = chance()
    values = {
        "turn": draw.uniform(-30, 30) if chance() else 0.0,
        "quarters": draw.randrange(4) if chance() else 0,
        "brightness": draw.uniform(0.8, 1.2) if tone else 1.0,
        "contrast": draw.uniform(0.8, 1.2) if tone else 1.0,
        "noise": draw.uniform(10, 50) ** 0.5 if chance() else 0.0,
        "noise_seed": draw.randrange(1 << 30),
    }
    if chance():
        kind = draw.choice(("box", "colours", "gaussian"))
        if kind == "colours":
            values["brightness"] *= draw.uniform(0.8, 1.2)
            values["contrast"] *= draw.uniform(0.8, 1.2)
            values |= {"saturation": draw.uniform(0.8, 1.2), "hue": draw.uniform(-0.2, 0.2)}
        else:
            box = kind == "box"
            values |= {"blur": 1.0 if box else draw.uniform(0.5, 1.4), "box": box}
    return Change(**values)  # type: ignore[arg-type]


def read(uri: str) -> Image.Image:
    """Draw the picture or the mask that a URI of :func:`changed` denotes."""
    what, told = description(uri)
    sample, change = original(told["of"]), Change(**fields(told["change"]))
    if what == "image":
        picture = read_image(sample.image, sample.crop, sample.bits)
        return change.toned(change.moved(picture))
    marked = defects(sample)
    return change.moved(Image.fromarray(marked.astype(np.uint8) * 255), mask=True)


register_reader(SCHEME, read)
