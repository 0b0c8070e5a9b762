"""Precision ``int8``: the linear layers of the blocks multiply in 8-bit integers, and nothing else.

What is exact stays exact: products of activations with activations (queries with keys, attention
with values: with these quantised a category lost up to 31 points), the patch convolution, layer
norms and the last projection are computed in float32.

A weight has 8 bits with a sign and a step of its own for every output channel.  What it is
multiplied with has 8 bits without a sign, one step and one zero for the whole tensor, which a
:class:`~zsad.backbones.engines.calibration.Calibration` gives.  Here that is written as ordinary
operations of torch, each rounded as the integers will be; OpenVINO finds them in the recording
and multiplies in integers.  No torch pass computes in them: int8 is not emulated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.backbones.blocks import ALL_ROWS, PARTS, Block, Part

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

RECIPE = 1  # raised whenever other integers come out of the same ranges
LEVELS = 255  # steps between the lowest and the highest 8-bit value
LARGEST = 127  # of a weight


class Range(NamedTuple):
    """The lowest and the highest value of what a layer is given; zero lies within."""

    low: float
    high: float

    @property
    def step(self) -> float:
        """What two neighbouring 8-bit values differ by."""
        return (self.high - self.low) / LEVELS

    @property
    def zero(self) -> int:
        """The 8-bit value that means zero, 0..255."""
        return min(LEVELS, max(0, round(-self.low / self.step)))


def place(layer: int, part: Part) -> str:
    """The name of a linear layer's input: ``7.up``; ``layer`` counts from 1."""
    return f"{layer}.{part}"


class Weight(NamedTuple):
    """A weight [out, in] as ``integers`` (int8) times the ``steps`` [out, 1] of its channels."""

    integers: Tensor
    steps: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Weight:
        """Round a float32 weight; a channel of zeros stays one."""
        exact = weight.detach().float()
        steps = exact.abs().amax(1, keepdim=True).clamp(min=1e-20) / LARGEST
        return cls((exact / steps).round().to(torch.int8), steps)


class QuantisedBlock(Block):
    """A block whose linear layers round what they are given, and their weights, to 8 bits."""

    def __init__(self, of: Block, layer: int, ranges: Mapping[str, Range]) -> None:
        super().__init__(of.block, of.activation, of.linear)
        self._ranges = {part: ranges[place(layer, part)] for part in PARTS}
        known: dict[int, Weight] = {}  # by address: two parts may have the same
        self._rounded: dict[Part, tuple[Weight, Tensor]] = {}
        for part in PARTS:
            weight, bias = self.weights(part)
            rounded = known.setdefault(weight.data_ptr(), Weight.of(weight))
            self._rounded[part] = (rounded, bias.detach())

    def product(self, x: Tensor, part: Part, rows: slice = ALL_ROWS) -> Tensor:
        own = self._ranges[part]
        (integers, steps), bias = self._rounded[part]
        given = torch.fake_quantize_per_tensor_affine(x, own.step, own.zero, 0, LEVELS)
        return F.linear(given, integers[rows].to(x.dtype) * steps[rows], bias[rows])


def with_blocks(encoder: ImageEncoder, make: Callable[[int, Block], Block]) -> ImageEncoder:
    """The same encoder with other blocks: ``make(layer, block)``, layers from 1."""
    twin = copy.copy(encoder)
    twin.blocks = [make(layer, block) for layer, block in enumerate(encoder.blocks, 1)]
    return twin


def quantised(encoder: ImageEncoder, ranges: Mapping[str, Range]) -> ImageEncoder:
    """The encoder as it is recorded for int8."""
    return with_blocks(encoder, lambda layer, block: QuantisedBlock(block, layer, ranges))
