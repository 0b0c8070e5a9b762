"""FiLo's trainable parts besides its prompts: stage projections (linear, MMCI), adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from zsad.backbones.engines.tiled_convolution import convolution
from zsad.methods.filo.config import KERNEL, Adapter, Mmci

if TYPE_CHECKING:
    from zsad.backbones.engines.heads import HeadEngine


class LinearStage(nn.Module):
    """One stage of the ordinary path: patches [B, L, D] to joint space, [[B, L, E]]."""

    def __init__(self, width: int, embed: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, embed)

    def forward(
        self, patches: Tensor, grid: tuple[int, int], heads: HeadEngine | None = None
    ) -> list[Tensor]:
        return [self.fc(patches)]


class MmciStage(nn.Module):
    """Multi-scale multi-shape cross-modal interaction for one stage (section 3.3.3).

    Parallel convolutions over the patch grid.  ``sum_then_softmax`` adds them up as features;
    since a "same" convolution with a small kernel equals one with that kernel zero-padded around
    its centre, their sum is a single convolution with the sum of the padded kernels and biases.
    ``softmax_then_sum`` (Eq. 2 as printed) keeps one result per kernel.
    """

    def __init__(self, width: int, embed: int, config: Mmci) -> None:
        super().__init__()
        self.config = config
        sides = {k: tuple(map(int, KERNEL.fullmatch(k).groups())) for k in config.kernels}  # type: ignore[union-attr]
        self.kernels = nn.ModuleDict(
            {
                k: nn.Conv2d(width, embed, (h, w), padding=(h // 2, w // 2))
                for k, (h, w) in sides.items()
            }
        )
        self.separate = len(sides) if config.fusion == "softmax_then_sum" else 1
        self.sides = (max(h for h, _ in sides.values()), max(w for _, w in sides.values()))
        taps = sum(h * w for h, w in sides.values())
        self.fold = (
            config.fusion == "sum_then_softmax"
            and {
                "always": True,
                "never": False,
                "auto": len(sides) > 1 and self.sides[0] * self.sides[1] < taps,
            }[config.fold]
        )
        self._cache: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def forward(
        self, patches: Tensor, grid: tuple[int, int], heads: HeadEngine | None = None
    ) -> list[Tensor]:
        """Project patches [B, L, D]: one [B, L, E], or one per kernel.  ``heads``: who runs the
        folded convolution; None: torch."""
        if self.fold:
            convolve = heads.convolve if heads else convolution
            return [convolve(patches, grid, *self.folded())]
        planes = patches.transpose(1, 2).unflatten(2, grid)  # [B, D, h, w]
        parts = [conv(planes) for conv in self.kernels.values()]
        if self.config.fusion == "sum_then_softmax":
            return [_tokens(torch.stack(parts).sum(0) if len(parts) > 1 else parts[0])]
        return [_tokens(p) for p in parts]

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the one kernel [E, D, H, W] and bias [E] that equal the parallel ones.

        Every kernel gets its own gradient.  Without gradients the result is kept until a
        parameter changes.
        """
        learning = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        if learning:
            self._cache = None
            return self._fold()
        if torch.compiler.is_compiling() and self._cache is not None:
            return self._cache[1], self._cache[2]  # a recording has no addresses
        state = tuple(v for p in self.parameters() for v in (p._version, p.data_ptr()))
        if self._cache is None or self._cache[0] != state:
            with torch.no_grad():
                self._cache = (state, *self._fold())
        return self._cache[1], self._cache[2]

    def _fold(self) -> tuple[Tensor, Tensor]:
        convolutions = cast("list[nn.Conv2d]", list(self.kernels.values()))
        weight: Tensor = PaddedSum.apply(self.sides, *(c.weight for c in convolutions))  # type: ignore[no-untyped-call]
        return weight, torch.stack([cast(Tensor, c.bias) for c in convolutions]).sum(0)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": None}  # the folded kernel is not part of the state


class PaddedSum(torch.autograd.Function):
    """Sum of kernels [E, D, h, w] that are zero-padded around their centres to ``sides``.

    Written out because autograd's way, a padded copy of every kernel and a sum of full size each,
    moves several times the memory: at batch 1 that took longer than the convolution itself.
    """

    @staticmethod
    def forward(ctx: Any, sides: tuple[int, int], *kernels: Tensor) -> Tensor:
        ctx.places = [_centre(sides, k) for k in kernels]
        out = kernels[0].new_zeros(*kernels[0].shape[:2], *sides)
        for kernel, place in zip(kernels, ctx.places):
            out[place] += kernel
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *(grads[0][place] for place in ctx.places))


def _centre(sides: tuple[int, int], kernel: Tensor) -> tuple[Any, ...]:
    """Where a kernel lies in the middle of a larger one."""
    height, width = kernel.shape[-2:]
    rows, columns = (sides[0] - height) // 2, (sides[1] - width) // 2
    return (..., slice(rows, rows + height), slice(columns, columns + width))


def _tokens(planes: Tensor) -> Tensor:
    return planes.flatten(2).transpose(1, 2)  # [B, E, h, w] -> [B, L, E]


class ImageAdapter(nn.Module):
    """Adapter of the global image vector [B, E] -> [B, E] (Algorithm 1; Table 14)."""

    def __init__(self, embed: int, config: Adapter) -> None:
        super().__init__()
        self.residual = config.residual and config.kind != "none"
        self.fc: nn.Module = nn.Identity()
        if config.kind == "linear":
            self.fc = nn.Linear(embed, embed, bias=config.bias)
        elif config.kind == "bottleneck":
            self.fc = nn.Sequential(
                nn.Linear(embed, embed // 2, bias=config.bias),
                nn.ReLU(),
                nn.Linear(embed // 2, embed, bias=config.bias),
                nn.SiLU(),
            )

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.fc(image)
        return out + image if self.residual else out


def stages(kind: str, count: int, width: int, embed: int, mmci: Mmci) -> nn.ModuleList:
    """Return ``count`` projections of a kind: linear, mmci; none gives an empty list."""
    if kind == "none":
        return nn.ModuleList()
    made: Sequence[nn.Module] = [
        LinearStage(width, embed) if kind == "linear" else MmciStage(width, embed, mmci)
        for _ in range(count)
    ]
    return nn.ModuleList(made)
