"""Precision ``int8``: the linear layers of the blocks multiply in 8-bit integers, and nothing else.

What is exact stays exact: products of activations with activations (queries with keys, attention
with values: with these quantised a category lost up to 31 points), the patch convolution, layer
norms and the last projection are computed in float32.

A weight has 8 bits with a sign and a step of its own for every output channel.  What it is
multiplied with has 8 bits without a sign, one step and one zero for the whole tensor, which a
:class:`~zsad.backbones.engines.calibration.Calibration` gives.  A channel that stands out behind a
layer norm would coarsen all others, so it is divided by a power of two and the weights that meet
it are multiplied by that (SmoothQuant, arXiv:2211.10438; exact in float32).

Here all of it is written as ordinary operations of torch, each rounded as the integers will be;
OpenVINO finds them in the recording and multiplies in integers.  No torch pass computes in them:
int8 is not emulated.
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


class Input(NamedTuple):
    """How what a layer is given becomes 8-bit integers: channel j is divided by 2^``shifts[j]``
    (none: by 1), and the whole then lies between ``low`` and ``high``, zero within."""

    low: float
    high: float
    shifts: tuple[int, ...] = ()

    @property
    def step(self) -> float:
        """What two neighbouring 8-bit values differ by."""
        return (self.high - self.low) / LEVELS

    @property
    def zero(self) -> int:
        """The 8-bit value that means zero, 0..255."""
        return min(LEVELS, max(0, round(-self.low / self.step)))

    @property
    def factors(self) -> Tensor | None:
        """2^shifts [in], by which the weight's columns are multiplied; None: 1."""
        return torch.tensor(self.shifts).float().exp2() if self.shifts else None


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


class _Rounded(NamedTuple):
    """A linear layer as it is recorded.  ``shrink``: what its input [*, in] is multiplied with."""

    given: Input
    shrink: Tensor | None
    weight: Weight
    bias: Tensor


class QuantisedBlock(Block):
    """A block whose linear layers round what they are given, and their weights, to 8 bits."""

    def __init__(self, of: Block, layer: int, inputs: Mapping[str, Input]) -> None:
        super().__init__(of.block, of.activation)  # nothing fused: all goes through product
        known: dict[int, Weight] = {}  # by address: two parts may have the same
        self._rounded: dict[Part, _Rounded] = {}
        for part in PARTS:
            given = inputs[place(layer, part)]
            weight, bias = self.weights(part)
            grow = given.factors
            if grow is None:
                rounded = known.setdefault(weight.data_ptr(), Weight.of(weight))
            else:
                rounded = Weight.of(weight * grow)
            shrink = None if grow is None else 1 / grow
            self._rounded[part] = _Rounded(given, shrink, rounded, bias.detach())

    def product(self, x: Tensor, part: Part, rows: slice = ALL_ROWS) -> Tensor:
        given, shrink, (integers, steps), bias = self._rounded[part]
        small = x if shrink is None else x * shrink
        near = torch.fake_quantize_per_tensor_affine(small, given.step, given.zero, 0, LEVELS)
        return F.linear(near, integers[rows].to(x.dtype) * steps[rows], bias[rows])


def with_blocks(encoder: ImageEncoder, make: Callable[[int, Block], Block]) -> ImageEncoder:
    """The same encoder with other blocks: ``make(layer, block)``, layers from 1."""
    twin = copy.copy(encoder)
    twin.blocks = [make(layer, block) for layer, block in enumerate(encoder.blocks, 1)]
    return twin


def quantised(encoder: ImageEncoder, inputs: Mapping[str, Input]) -> ImageEncoder:
    """The encoder as it is recorded for int8.  ``inputs``: of every linear layer, by
    :func:`place`."""
    return with_blocks(encoder, lambda layer, block: QuantisedBlock(block, layer, inputs))
