"""Engine ``onednn``: torch's linear layers on weights that oneDNN has packed.

``F.linear`` calls MKL, which runs AVX2 code on AVX-512 processors of other vendors than its own;
oneDNN does not.  An exact GELU behind a product is applied while that is written, which saves two
passes over the widest layer of a block.  No graph is made: any shape goes, both towers and
``resume`` included, at the price of one more copy of the weights.  The operators are private to
torch, so they are looked for and tried before they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.backbones.engines.choice import VERIFIED_ON
from zsad.types import Tap

if TYPE_CHECKING:
    from zsad.backbones.clip_vit import ImageEncoder

log = logging.getLogger(__name__)

CLOSE = 1e-5  # relative, of a product


class PackedLinear:
    """The packed weights of one backbone, made when they are first read.

    ``on``: used wherever no gradient is wanted; otherwise only where :meth:`used` says so.
    ``error``: of the worst product that is used, relative; None: none is.
    """

    def __init__(self, on: bool = False) -> None:
        self.on = on
        self._packed: dict[tuple[int, int, int], tuple[Tensor | None, Tensor]] = {}
        self._fused: dict[tuple[int, int, int], bool] = {}
        self.error: float | None = None

    @contextmanager
    def used(self, on: bool) -> Iterator[None]:
        """Use packed weights within, or do not."""
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before

    def switch(self, on: bool) -> None:
        """Use packed weights from now on, or no longer."""
        self.on = on

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b: [*, in] -> [*, out]; ``weight`` may be rows of a parameter."""
        packed = self._usable(weight)
        return F.linear(x, weight, bias) if packed is None else multiply(x, packed, bias)

    def gelu(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return GELU(x W^T + b), the exact one: [*, in] -> [*, out]."""
        packed = self._usable(weight)
        if packed is None or not fuses():
            return F.gelu(self(x, weight, bias))
        key = _key(weight)
        if key not in self._fused:
            self._fused[key] = self._verified(
                lambda x: multiply_gelu(x, packed, bias),
                lambda x: F.gelu(F.linear(x, weight, bias)),
                weight,
            )
        return multiply_gelu(x, packed, bias) if self._fused[key] else F.gelu(self(x, weight, bias))

    def _usable(self, weight: Tensor) -> Tensor | None:
        """The packed weight where it may be used now; None: torch is to multiply."""
        if not self.on or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        key = _key(weight)
        if key not in self._packed:  # the weight is kept, so that its address stays its own
            packed = pack(weight)
            right = self._verified(
                lambda x: multiply(x, packed, None), lambda x: F.linear(x, weight), weight
            )
            self._packed[key] = (packed if right else None, weight)
        return self._packed[key][0]

    def _verified(
        self, product: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor], of: Tensor
    ) -> bool:
        """Whether a product with a weight is torch's; one line where it is not."""
        generator = torch.Generator().manual_seed(20)
        x = torch.randn(VERIFIED_ON, of.shape[1], generator=generator)
        wanted = right(x)
        error = float((product(x) - wanted).norm() / wanted.norm().clamp(min=1e-30))
        if not error <= CLOSE:
            log.warning("a product runs in torch, not on packed weights: %.1e from torch", error)
            return False
        self.error = max(error, self.error or 0.0)
        return True


def _key(weight: Tensor) -> tuple[int, int, int]:
    return weight.data_ptr(), len(weight), weight._version


def pack(weight: Tensor) -> Tensor:
    """Return a float32 weight [out, in] as oneDNN keeps it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return packed


def multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W^T + b: [*, in] -> [*, out] for a packed W."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


def multiply_gelu(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Return GELU(x W^T + b): [*, in] -> [*, out] for a packed W."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "gelu", [], "none")
    return product


@cache
def works() -> bool:
    """Whether this build of torch has the operators, and their product is the right one."""
    return torch.backends.mkldnn.is_available() and _right(multiply, lambda product: product)


@cache
def fuses() -> bool:
    """Whether it can apply an exact GELU behind the product as well."""
    return works() and _right(multiply_gelu, F.gelu)


def _right(
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor], behind: Callable[[Tensor], Tensor]
) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(5, 64, generator=generator) for _ in range(2))
    with torch.no_grad():
        try:
            found = product(x, pack(weight), None)
        except (AttributeError, RuntimeError, TypeError):
            return False
        wanted = behind(F.linear(x, weight))
    return bool((found - wanted).norm() <= CLOSE * wanted.norm())


class OneDnn:
    """Runs the encoder as it is, with packed weights."""

    name = "onednn"

    def __init__(self, packed: PackedLinear) -> None:
        self.packed = packed
        self.version = str(torch.__version__)

    def graph(self, encoder: ImageEncoder, size: int, taps: Sequence[Tap]) -> Any:
        def run(images: Tensor) -> dict[Tap, Tensor]:
            with self.packed.used(True):
                return encoder.taps_of(images, taps)

        return run
