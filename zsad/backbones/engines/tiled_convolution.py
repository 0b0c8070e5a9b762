"""A large convolution over the patch grid as products of frequencies, tile by tile.

A 7x7 kernel on a 37x37 grid takes 49 products an output.  Cut into tiles of 14x14 that overlap by
6 (overlap-save), and taken to frequencies, it takes 7: of the 196 real values of a tile 100
complex frequencies are its own, and each is one matrix product over the channels.  The transforms
are so small that they are matrix products, too.  In float32 the result is as near to the
convolution's as that is to the exact one; it costs the kernel once more, at 200 values in the
place of 49.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_TILE = 20  # side in patches; the spectra grow with its square
MACS_PER_BYTE = 7.5  # what a core multiplies while it reads a byte of spectra


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

    def tiles(self, side: int) -> tuple[int, int]:
        """How many tiles of this side cover the rows and the columns of the grid."""
        rows, columns = (
            -(-size // (side - kernel + 1)) for size, kernel in zip(self.grid, self.kernel)
        )
        return rows, columns

    def tiled_cost(self, side: int) -> float:
        """What one image costs in tiles: multiply-accumulates, reading the spectra among them."""
        count, tiles = len(frequencies(side)), math.prod(self.tiles(side))
        kept = math.prod(side - k + 1 for k in self.kernel)
        products = 4 * count * tiles * self.width * self.outputs
        there = 2 * count * side * side * tiles * self.width
        back = 2 * count * kept * tiles * self.outputs
        return products + there + back + MACS_PER_BYTE * 8 * count * self.width * self.outputs

    def best_side(self) -> int:
        """The side of the tiles that cost least."""
        sides = range(max(self.kernel) + 1, max(LARGEST_TILE, max(self.kernel) + 1) + 1)
        return min(sides, key=self.tiled_cost)


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
def transforms(side: int, kernel: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """The matrices from a tile's values to its frequencies [2F, side^2], from a kernel's values to
    its conjugate ones [2F, kh*kw], and from frequencies to a tile's valid outputs [N, 2F]; real and
    imaginary parts in turn.  Computed in float64."""
    u, v, counts = torch.tensor(frequencies(side), dtype=torch.float64).T

    def angles(rows: int, columns: int) -> Tensor:  # [F, rows * columns]
        i, j = torch.arange(rows).double(), torch.arange(columns).double()
        steps = u[:, None, None] * i[:, None] + v[:, None, None] * j
        found: Tensor = (2 * math.pi / side * steps).flatten(1)
        return found

    def parts(a: Tensor, sign: int) -> Tensor:
        return torch.stack([a.cos(), sign * a.sin()], 1).flatten(0, 1)

    valid = angles(side - kernel[0] + 1, side - kernel[1] + 1)
    back = parts(valid, -1) * (counts / side**2).repeat_interleave(2)[:, None]
    there, of_kernel = parts(angles(side, side), -1), parts(angles(*kernel), 1)
    return there.float(), of_kernel.float(), back.T.float().contiguous()


class TiledConvolution:
    """``F.conv2d`` with ``weight`` [E, D, kh, kw], ``bias`` [E] and padding that keeps the grid,
    on patches of one grid.  Images are taken one by one, so that no figure depends on the batch."""

    def __init__(self, weight: Tensor, bias: Tensor, grid: tuple[int, int]) -> None:
        outputs, width, height, columns = weight.shape
        self.shape = Shape(grid, (height, columns), width, outputs)
        self.side = self.shape.best_side()
        self.bias = bias
        _, of_kernel, _ = transforms(self.side, self.shape.kernel)
        values = weight.permute(2, 3, 1, 0).reshape(height * columns, width * outputs)
        self.spectra = (of_kernel @ values).view(-1, 2 * width, outputs)  # [F, 2D, E]

    def __call__(self, patches: Tensor) -> Tensor:
        """Patches [B, L, D], row by row of the grid -> [B, L, E]."""
        return torch.stack([self._one(image) for image in patches])

    def _one(self, patches: Tensor) -> Tensor:
        shape, side = self.shape, self.side
        (rows, columns), (height, width) = shape.tiles(side), shape.kernel
        there, _, back = transforms(side, shape.kernel)
        steps = (side - height + 1, side - width + 1)
        top, left = height // 2, width // 2
        padded = patches.new_zeros(
            rows * steps[0] + height - 1, columns * steps[1] + width - 1, shape.width
        )
        inside = padded[top : top + shape.grid[0], left : left + shape.grid[1]]
        inside.copy_(patches.unflatten(0, shape.grid))
        tiles = padded.unfold(0, side, steps[0]).unfold(1, side, steps[1])  # [r, c, D, T, T]
        values = tiles.permute(3, 4, 0, 1, 2).reshape(side * side, -1)
        real, imaginary = (there @ values).view(-1, 2, rows * columns, shape.width).unbind(1)
        # (a + ib)(c + id) as [[a, -b], [b, a]] [[c], [d]]: real and imaginary parts in one product
        pairs = torch.stack(
            [torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)], 1
        )
        found = back @ torch.bmm(pairs.flatten(1, 2), self.spectra).view(back.shape[1], -1)
        planes = found.view(*steps, rows, columns, shape.outputs).permute(2, 0, 3, 1, 4)
        whole = planes.reshape(rows * steps[0], columns * steps[1], shape.outputs)
        return whole[: shape.grid[0], : shape.grid[1]].flatten(0, 1) + self.bias


def convolution(patches: Tensor, grid: tuple[int, int], weight: Tensor, bias: Tensor) -> Tensor:
    """The same by ``F.conv2d``: patches [B, L, D] -> [B, L, E]."""
    planes = patches.transpose(1, 2).unflatten(2, grid)  # [B, D, h, w]
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    return F.conv2d(planes, weight, bias, padding=padding).flatten(2).transpose(1, 2)
