"""A convolution in tiles of frequencies is the convolution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zsad.backbones.engines.tiled_convolution import (
    LARGEST_SPECTRA,
    Axis,
    Shape,
    TiledConvolution,
    convolution,
    frequencies,
    transforms,
)


def drawn(shape: Shape, images: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [B, L, D], weight and bias."""
    generator = torch.Generator().manual_seed(4)
    patches = torch.randn(images, math.prod(shape.grid), shape.width, generator=generator)
    weight = torch.randn(shape.outputs, shape.width, *shape.kernel, generator=generator)
    return patches, weight, torch.randn(shape.outputs, generator=generator)


@pytest.mark.parametrize(
    "shape",
    [
        Shape((14, 14), (7, 7), 24, 32),
        Shape((37, 37), (7, 7), 8, 6),
        Shape((11, 5), (3, 9), 4, 3),  # a kernel wider than the grid
        Shape((40, 9), (5, 5), 4, 3),  # several tiles down, one across
        Shape((1, 6), (5, 1), 3, 2),
        Shape((4, 4), (21, 21), 2, 2),  # larger than the usual tiles
    ],
    ids=str,
)
def test_it_is_as_near_to_the_exact_one_as_torch(shape: Shape) -> None:
    patches, weight, bias = drawn(shape)
    found = TiledConvolution(weight, bias, shape.grid)(patches)
    exact = convolution(patches.double(), shape.grid, weight.double(), bias.double())
    theirs = convolution(patches, shape.grid, weight, bias)
    assert found.shape == theirs.shape
    error = float((found - exact).norm() / exact.norm())
    assert error <= 4 * float((theirs - exact).norm() / exact.norm()) + 3e-7


@pytest.mark.parametrize(
    "shape", [Shape((14, 14), (7, 7), 24, 32), Shape((37, 37), (7, 7), 8, 6)], ids=str
)
def test_no_figure_depends_on_the_batch(shape: Shape) -> None:
    """But for the order of sums; more images than read the kernel together."""
    patches, weight, bias = drawn(shape, 35)
    run = TiledConvolution(weight, bias, shape.grid)
    assert shape.images_at_once(run.side) < 35
    alone = torch.cat([run(image[None]) for image in patches])
    torch.testing.assert_close(
        run(patches), alone, rtol=0, atol=1e-6 * float(alone.norm(dim=-1).max())
    )


def test_a_grid_that_fits_a_tile_takes_one_with_a_single_margin() -> None:
    shape = Shape((14, 14), (7, 7), 192, 256)
    assert shape.best_side() == 17
    assert shape.axes(17) == (Axis(1, 14, 3, 14), Axis(1, 14, 3, 14))
    assert shape.axes(16) == (Axis(2, 10, 0, 16), Axis(2, 10, 0, 16))
    assert shape.images_at_once(17) == 32
    assert shape.tiled_cost(17) < shape.macs / 5
    assert shape.tiled_cost(17, alone=True) > shape.tiled_cost(17)


@pytest.mark.parametrize("side", [7, 8])
def test_a_tile_is_its_frequencies(side: int) -> None:
    """There and back; as many real values as the tile has, and a zero for each own conjugate."""
    there, _, back = transforms(side, (1, 1), (Axis(1, side, 0, side),) * 2)
    torch.testing.assert_close(back @ there, torch.eye(side * side), rtol=0, atol=1e-6)
    counts = [count for _, _, count in frequencies(side)]
    assert sum(counts) == side * side


def test_tiles_save_multiplications_at_full_size() -> None:
    shape = Shape((37, 37), (7, 7), 1024, 768)
    side = shape.best_side()
    tiles = math.prod(axis.tiles for axis in shape.axes(side))
    assert 2 * tiles * shape.spectra(side) < 0.16 * shape.macs
    assert shape.images_at_once(side) == 1


@pytest.mark.parametrize("size", [14, 15, 16, 24, 37])
def test_the_spectra_fit_a_machine(size: int) -> None:
    """At the width of ViT-L a tile as large as the grid would take more than a gigabyte."""
    shape = Shape((size, size), (7, 7), 1024, 768)
    assert 4 * shape.spectra(shape.best_side()) <= LARGEST_SPECTRA
