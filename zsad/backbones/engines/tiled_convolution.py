"""A large convolution over the patch grid as products of frequencies, tile by tile.

A 7x7 kernel on a 37x37 grid takes 49 products an output.  Cut into tiles of 14x14 that overlap by
6 (overlap-save), and taken to frequencies, it takes 7: of the 196 real values of a tile 100
complex frequencies are its own, and each is one matrix product over the channels.  The transforms
are so small that they are matrix products, too.  In float32 the result is as near to the
convolution's as that is to the exact one; it costs the kernel once more, at 200 values in the
place of 49.

A grid that fits a tile is one: what a transform wraps around is the margin's zeros, so a margin
on one side serves both.  The frequencies of a kernel are more than a cache holds, so several
images go through each of them together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_TILE = 20  # side in patches; the spectra grow with its square
LARGEST_SPECTRA = 700e6  # bytes
MACS_PER_BYTE = 7.5  # what a core multiplies while it reads a byte of spectra
MOVING = 2.5  # times the products that making takes; the rest of it is memory
TILES_AT_ONCE = 32  # that read a frequency together; more gain little, and fill the caches


class Axis(NamedTuple):
    """How tiles lie along rows or columns: how many ``tiles``, each with so many ``outputs``, made
    of ``inputs`` values from place ``first`` of the tile on."""

    tiles: int
    outputs: int
    first: int
    inputs: int

    @classmethod
    def of(cls, size: int, kernel: int, side: int) -> Axis:
        """Of ``size`` patches under an odd ``kernel`` in tiles of ``side``."""
        if size + kernel // 2 <= side:
            return cls(1, size, kernel // 2, size)
        outputs = side - kernel + 1
        return cls(-(-size // outputs), outputs, 0, side)


@dataclass(frozen=True)
class Shape:
    """Of a "same" convolution: ``grid`` (rows, columns) of the patches, ``kernel`` (height, width),
    both odd, ``width`` and ``outputs``: channels."""

    grid: tuple[int, int]
    kernel: tuple[int, int]
    width: int
    outputs: int

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one image, as a convolution."""
        return float(math.prod((*self.grid, *self.kernel, self.width, self.outputs)))

    def axes(self, side: int) -> tuple[Axis, Axis]:
        """How tiles of this side lie along the rows and the columns of the grid."""
        rows, columns = (
            Axis.of(size, kernel, side) for size, kernel in zip(self.grid, self.kernel)
        )
        return rows, columns

    def images_at_once(self, side: int) -> int:
        """How many images read a frequency of the kernel together."""
        rows, columns = self.axes(side)
        return max(1, TILES_AT_ONCE // (rows.tiles * columns.tiles))

    def spectra(self, side: int) -> int:
        """Values of the kernel's frequencies."""
        return 2 * len(frequencies(side)) * self.width * self.outputs

    def tiled_cost(self, side: int, alone: bool = False) -> float:
        """What one image of many, or one ``alone``, costs in tiles: multiply-accumulates, reading
        the spectra among them."""
        rows, columns = self.axes(side)
        count, tiles = len(frequencies(side)), rows.tiles * columns.tiles
        products = 2 * tiles * self.spectra(side)
        there = 2 * count * rows.inputs * columns.inputs * tiles * self.width
        back = 2 * count * rows.outputs * columns.outputs * tiles * self.outputs
        reading = MACS_PER_BYTE * 4 * self.spectra(side)
        return products + there + back + reading / (1 if alone else self.images_at_once(side))

    def making_cost(self, side: int, images: int) -> float:
        """What making the spectra and trying them on single ``images`` costs, in the same unit."""
        made = self.spectra(side) * math.prod(self.kernel)
        return MOVING * (made + images * self.tiled_cost(side, alone=True))

    def best_side(self) -> int:
        """The side of the tiles that cost least, of those with spectra that a machine has room
        for."""
        least = max(self.kernel) + 1
        sides = range(least, max(LARGEST_TILE, least) + 1)
        small = [side for side in sides if 4 * self.spectra(side) <= LARGEST_SPECTRA]
        return min(small or sides[:1], key=self.tiled_cost)


def frequencies(side: int) -> list[tuple[int, int, int]]:
    """The frequencies (u, v) that a real tile has to itself, each with how often it counts: the
    others are the conjugates of these."""
    middle = side // 2

    def own_conjugate(n: int) -> bool:
        return 2 * n % side == 0

    def every() -> Iterator[tuple[int, int, int]]:
        for v in range(middle + 1):
            for u in range(middle + 1 if own_conjugate(v) else side):
                yield u, v, 1 if own_conjugate(v) and own_conjugate(u) else 2

    return list(every())


@lru_cache(maxsize=16)
def transforms(
    side: int, kernel: tuple[int, int], axes: tuple[Axis, Axis]
) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices from a tile's inputs to its frequencies [2F, I], from a kernel's values to
    its conjugate ones [2F, kh*kw], and from frequencies to a tile's outputs [N, 2F]; real and
    imaginary parts in turn.  Computed in float64."""
    u, v, counts = torch.tensor(frequencies(side), dtype=torch.float64).T

    def angles(rows: range, columns: range) -> Tensor:  # [F, rows * columns]
        i, j = torch.tensor(rows).double(), torch.tensor(columns).double()
        steps = u[:, None, None] * i[:, None] + v[:, None, None] * j
        found: Tensor = (2 * math.pi / side * steps).flatten(1)
        return found

    def parts(a: Tensor, sign: int) -> Tensor:
        return torch.stack([a.cos(), sign * a.sin()], 1).flatten(0, 1)

    inputs = angles(*(range(axis.first, axis.first + axis.inputs) for axis in axes))
    outputs = angles(*(range(axis.outputs) for axis in axes))
    back = parts(outputs, -1) * (counts / side**2).repeat_interleave(2)[:, None]
    of_kernel = parts(angles(range(kernel[0]), range(kernel[1])), 1)
    return parts(inputs, -1).float(), of_kernel.float(), back.T.float().contiguous()


class TiledConvolution:
    """``F.conv2d`` with ``weight`` [E, D, kh, kw], ``bias`` [E] and padding that keeps the grid,
    on patches of one grid.  What else is in a batch changes the order of sums at most."""

    def __init__(self, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> None:
        outputs, width, height, columns = weight.shape
        self.shape = Shape(grid, (height, columns), width, outputs)
        self.side = self.shape.best_side()
        self.bias = bias
        _, of_kernel, _ = self._transforms()
        values = weight.permute(2, 3, 1, 0).reshape(height * columns, width * outputs)
        self.spectra = (of_kernel @ values).view(-1, 2 * width, outputs)  # [F, 2D, E]

    def __call__(self, patches: Tensor) -> Tensor:
        """Patches [B, L, D], row by row of the grid -> [B, L, E]."""
        found = patches.new_empty(*patches.shape[:2], self.shape.outputs)
        some = self.shape.images_at_once(self.side)
        for part, out in zip(patches.split(some), found.split(some)):
            torch.add(self._together(part), self.bias, out=out.unflatten(1, self.shape.grid))
        return found

    def _transforms(self) -> tuple[Tensor, Tensor, Tensor]:
        return transforms(self.side, self.shape.kernel, self.shape.axes(self.side))

    def _together(self, patches: Tensor) -> Tensor:
        """Images that read the spectra together, [B, L, D] -> [B, h, w, E]."""
        shape, (rows, columns) = self.shape, self.shape.axes(self.side)
        there, _, back = self._transforms()
        tiles = len(patches) * rows.tiles * columns.tiles
        values = self._tiles(patches).reshape(-1, tiles * shape.width)
        real, imaginary = (there @ values).view(-1, 2, tiles, shape.width).unbind(1)
        # (a + ib)(c + id) as [[a, -b], [b, a]] [[c], [d]]: real and imaginary parts in one product
        pairs = values.new_empty(len(real), 2, tiles, 2, shape.width)
        pairs[:, 0, :, 0] = real
        torch.neg(imaginary, out=pairs[:, 0, :, 1])
        pairs[:, 1, :, 0] = imaginary
        pairs[:, 1, :, 1] = real
        products = torch.bmm(pairs.view(len(real), 2 * tiles, -1), self.spectra)
        found = (back @ products.view(back.shape[1], -1)).view(
            rows.outputs, columns.outputs, len(patches), rows.tiles, columns.tiles, shape.outputs
        )
        planes = found.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)
        return planes[:, : shape.grid[0], : shape.grid[1]]

    def _tiles(self, patches: Tensor) -> Tensor:
        """The inputs of every tile: [B, L, D] -> [rows, columns, B, down, across, D]."""
        planes = patches.unflatten(1, self.shape.grid)
        margins = []  # of the columns, then of the rows
        rows, columns = self.shape.axes(self.side)
        for axis, size, kernel in zip(
            (columns, rows), self.shape.grid[::-1], self.shape.kernel[::-1]
        ):
            before = kernel // 2 - axis.first
            margins += [before, (axis.tiles - 1) * axis.outputs + axis.inputs - size - before]
        padded = F.pad(planes, (0, 0, *margins)) if any(margins) else planes
        found = padded.unfold(1, rows.inputs, rows.outputs)
        return found.unfold(2, columns.inputs, columns.outputs).permute(4, 5, 0, 1, 2, 3)


def convolution(patches: Tensor, grid: tuple[int, int], weight: Tensor, bias: Tensor) -> Tensor:
    """The same by ``F.conv2d``: patches [B, L, D] -> [B, L, E]."""
    planes = patches.transpose(1, 2).unflatten(2, grid)  # [B, D, h, w]
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return F.conv2d(planes, weight, bias, padding=padding).flatten(2).transpose(1, 2)
