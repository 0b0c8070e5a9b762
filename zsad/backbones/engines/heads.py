"""Who runs the costly products of a method's head on a CPU: torch, or what is faster and the same.

Three things pay.  Large convolutions over the patch grid run in tiles
(:mod:`zsad.backbones.engines.tiled_convolution`); trees of prompts attend run by run
(:mod:`zsad.backbones.tree_attention`); text towers and resumed passes run on packed weights where
torch's own products are slow.  Tiles and packed weights are float32 whatever the encoder's
precision is, chosen from facts, and compared with torch at first use.  Gradients, recordings and
other devices stay in torch, and so does training, which never gets to see a :class:`HeadEngine`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zsad.backbones import tree_attention
from zsad.backbones.engines.choice import VERIFIED_ON, packing_pays
from zsad.backbones.engines.packed import works
from zsad.backbones.engines.tiled_convolution import Shape, TiledConvolution, convolution
from zsad.backbones.engines.verification import WORST_ERROR, compare
from zsad.errors import ZsadError, reason

if TYPE_CHECKING:
    from zsad.backbones.backbone import Backbone

log = logging.getLogger(__name__)

TILES, PACKED = "tiled convolution", "packed text"
PLENTY = 1_000  # pictures, where an engine was asked for by name
MOST_KERNELS = 8  # whose spectra are kept
PROBES = 8  # mixtures of all outputs that are compared
Key = tuple[int, int, tuple[int, int]]


def tiles_pay(shape: Shape, pictures: int) -> bool:
    """Whether so many pictures save more in tiles than making and verifying them costs."""
    side = shape.best_side()
    saved = pictures * (shape.macs - shape.tiled_cost(side))
    return saved > shape.making_cost(side, VERIFIED_ON)


class HeadEngine:
    """What of one method's head does not run as torch would run it.

    ``backbone.engine=torch`` leaves everything to torch; an engine that is asked for by name does
    not wait for pictures enough.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._kept: dict[Key, tuple[TiledConvolution | None, Tensor]] = {}
        self._errors: dict[str, float] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, prompts attend run by run, and text towers and resumed passes multiply by packed
        weights where that pays."""
        if self._backbone.engines.torch_only:
            yield
            return
        packed = self._backbone.engines.packed
        if not self._packs or not works():
            with tree_attention.used():
                yield
            return
        with tree_attention.used(), packed.used(True):
            yield
        if packed.error is not None:
            self._errors[PACKED] = packed.error

    def convolve(
        self, patches: Tensor, grid: tuple[int, int], weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Convolve patches [B, L, D] of a grid with ``weight`` [E, D, kh, kw] (both odd) and
        ``bias`` [E]; the grid stays: [B, L, E]."""
        tiles = self._tiles(patches, grid, weight, bias)
        return tiles(patches) if tiles else convolution(patches, grid, weight, bias)

    def account(self) -> dict[str, Any]:
        """For records, beside who ran the encoder: what ran otherwise than in torch, and how far
        from torch it was at worst.  {}: nothing did."""
        if not self._errors:
            return {}
        worst = max(self._errors.values())
        return {"head": " + ".join(sorted(self._errors)), "head_error": float(f"{worst:.2g}")}

    # --------------------------------------------------------------------------- internal
    @property
    def _packs(self) -> bool:
        """Whether weights are float32 on a processor where packed ones are faster."""
        engines, device = self._backbone.engines, self._backbone.device.type
        exact = engines.precision == "fp32" or engines.asked == "openvino"
        width = max(engines.info.width, engines.info.text_width)
        return (
            exact
            and not engines.torch_only
            and device == "cpu"
            and packing_pays(engines.facts(device), width)
        )

    def _tiles(
        self, patches: Tensor, grid: tuple[int, int], weight: Tensor, bias: Tensor
    ) -> TiledConvolution | None:
        """The tiled form of a convolution; None: torch is to run it."""
        engines = self._backbone.engines
        if engines.torch_only or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return None
        if weight.device.type != "cpu" or {weight.dtype, patches.dtype} != {torch.float32}:
            return None
        outputs, width, *kernel = weight.shape
        shape = Shape(grid, (kernel[0], kernel[1]), width, outputs)
        pictures = engines.pictures if engines.asked == "auto" else PLENTY
        key = (weight.data_ptr(), weight._version, grid)
        if key not in self._kept:
            if not tiles_pay(shape, pictures):
                return None  # not kept: more pictures may come
            while len(self._kept) >= MOST_KERNELS:
                self._kept.pop(next(iter(self._kept)))
            made = self._verified(weight, bias, grid)
            self._kept[key] = (made, weight)  # the weight, so that its address stays its own
        return self._kept[key][0]

    def _verified(
        self, weight: Tensor, bias: Tensor, grid: tuple[int, int]
    ) -> TiledConvolution | None:
        """The tiled form if it equals torch's, else None and one line."""
        try:
            tiles = TiledConvolution(weight, bias, grid)
            error = off_torch(tiles, weight, bias, grid)
        except (RuntimeError, MemoryError, ZsadError) as failed:
            log.warning("a head's convolution runs in torch, not in tiles: %s", reason(failed))
            return None
        if not error <= WORST_ERROR:
            log.warning(
                "a head's convolution runs in torch, not in tiles: those are %.1e from torch", error
            )
            return None
        self._errors[TILES] = max(error, self._errors.get(TILES, 0.0))
        return tiles


def off_torch(
    tiles: TiledConvolution, weight: Tensor, bias: Tensor, grid: tuple[int, int]
) -> float:
    """How far the tiles are from torch's convolution on noise for three pictures, relative.

    Compared are random mixtures of all outputs: a convolution with the mixed kernel gives the same
    as mixing the outputs, at a hundredth of the price.
    """
    generator = torch.Generator().manual_seed(20)
    images = torch.randn(VERIFIED_ON, grid[0] * grid[1], weight.shape[1], generator=generator)
    mix = torch.randn(PROBES, len(weight), generator=generator)
    mixed = torch.einsum("pe,edhw->pdhw", mix, weight)
    right = convolution(images, grid, mixed, mix @ bias)
    found = [compare(tiles(i[None]) @ mix.T, r[None]) for i, r in zip(images, right)]
    return max(f.error for f in found)
