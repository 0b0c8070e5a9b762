"""A convolution in tiles of frequencies is the convolution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from zsad.backbones.engines.tiled_convolution import (
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
    assert error <= 4 * float((theirs - exact).norm() / exact.norm()) + 2e-7


def test_no_figure_depends_on_the_batch() -> None:
    shape = Shape((14, 14), (7, 7), 24, 32)
    patches, weight, bias = drawn(shape, 3)
    run = TiledConvolution(weight, bias, shape.grid)
    assert torch.equal(run(patches), torch.cat([run(image[None]) for image in patches]))


@pytest.mark.parametrize("side", [7, 8])
def test_a_tile_is_its_frequencies(side: int) -> None:
    """There and back; as many real values as the tile has, and a zero for each own conjugate."""
    there, _, back = transforms(side, (1, 1))
    torch.testing.assert_close(back @ there, torch.eye(side * side), rtol=0, atol=1e-6)
    counts = [count for _, _, count in frequencies(side)]
    assert sum(counts) == side * side


def test_tiles_save_multiplications_at_full_size() -> None:
    shape = Shape((37, 37), (7, 7), 1024, 768)
    products = 4 * len(frequencies(side := shape.best_side())) * math.prod(shape.tiles(side))
    assert products * shape.width * shape.outputs < 0.16 * shape.macs
    assert 8 * len(frequencies(side)) * shape.width * shape.outputs < 700e6  # bytes of spectra
