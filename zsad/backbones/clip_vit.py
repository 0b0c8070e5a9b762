"""The image encoder: one pass over open_clip's vision transformer, every tap on the way.

The v-v path (CLIP Surgery; KAnoCLIP Eq. 4-8) adds, at block l, ``a_l = O(softmax(v v^T) v)``
with v of the *ordinary* state.  a_l does not depend on the path that it is added to, so one set
of a_l serves every start block: ``VV_s(l) = x_{s-1} + sum_{j=s..l} a_j``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zsad.backbones.block_plan import VALUE_KINDS, WINDOW_KINDS, Rows, check, plan
from zsad.backbones.blocks import (
    Adapters,
    Block,
    Linear,
    activation_of,
    adapted,
    attend,
    heads_joined,
    layer_norm,
)
from zsad.backbones.towers import begin_pass
from zsad.backbones.windows import count_windows, encode_windows
from zsad.on_device import uploaded
from zsad.types import EncoderVariant, ImageFeatures, Tap

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

    from zsad.backbones.counters import Counters
    from zsad.backbones.engines.dispatch import Engines


class Entered(NamedTuple):
    """Tokens [*, N, D] behind ``ln_pre``, and the queries, keys and values [*, N, 3 D] that the
    first block makes of them."""

    x: Tensor
    qkv: Tensor

    def picked(self, places: Tensor) -> Entered:
        """Sequences of some tokens; ``places`` [M, n] in all tokens of all images."""
        rows = (t.flatten(0, -2).index_select(0, places.flatten()) for t in self)
        return Entered(*(t.unflatten(0, places.shape) for t in rows))


class ImageEncoder:
    """The vision tower under one :class:`EncoderVariant`.  Holds no weights of its own.

    ``window_tokens``: sequence positions that one chunk of window passes may hold.  ``engines``:
    who may run :meth:`taps_of` in its place; ``linear``: who multiplies.
    """

    def __init__(
        self,
        visual: VisionTransformer,
        variant: EncoderVariant,
        counters: Counters,
        *,
        window_tokens: int = 8192,
        engines: Engines | None = None,
        linear: Linear = F.linear,
    ) -> None:
        self.visual = visual
        self.variant = variant
        self.counters = counters
        self.window_tokens = window_tokens
        self.engines = engines
        activation = activation_of(variant.activation)
        self.blocks = [Block(b, activation, linear) for b in visual.transformer.resblocks]
        self.depth = len(self.blocks)
        self.patch: int = visual.patch_size[0]
        self._positions: dict[tuple[Any, ...], Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        weight: Tensor = self.visual.conv1.weight
        return weight.dtype

    # ------------------------------------------------------------------------- the pass
    @torch.no_grad()
    def encode(self, images: Tensor, taps: Iterable[Tap]) -> ImageFeatures:
        """Encode normalised images [B, 3, H, W] once and return the wanted taps.

        Raises ``ValueError`` for a tap that does not exist or images of another size than the
        variant's.
        """
        taps = frozenset(taps)
        for tap in taps:
            check(tap, self.depth)
        grid = begin_pass(self, images)
        self.counters.windows += len(images) * count_windows(grid, taps)
        found = self.engines.run(self, images, taps) if self.engines else None
        return ImageFeatures(grid, self.taps_of(images, taps) if found is None else found)

    def taps_of(self, images: Tensor, taps: Iterable[Tap]) -> dict[Tap, Tensor]:
        """Return the taps of normalised images [B, 3, H, W]: a pure function of them, which is
        what an engine runs in torch's place."""
        taps = frozenset(taps)
        pre, grid = self.embed(images)
        out = self.run(pre, taps)
        out.update(encode_windows(self, pre, grid, [t for t in taps if t.kind in WINDOW_KINDS]))
        return out

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return patch embedding + position with the class token, [B, 1+L, D], and the grid."""
        patches = self.visual.conv1(images.to(self.dtype))  # [B, D, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).transpose(1, 2)
        token = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([token, patches], 1) + self.positions(grid), grid

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the position table [1+L, D] of a patch grid.  The class row is never resized."""
        table = self.visual.positional_embedding
        key = (grid, self.variant.pos_interp, table.device, table.dtype)
        if key not in self._positions:
            # on the CPU, once: not every device has every way of resizing
            resized = resize_positions(table.detach().cpu(), grid, self.variant.pos_interp)
            self._positions[key] = uploaded(resized, table.device)
        return self._positions[key]

    def enter(self, pre: Tensor) -> Entered:
        """Return what the first block makes of tokens before ``ln_pre`` [*, N, D] one by one."""
        x = layer_norm(self.visual.ln_pre, pre)
        first = self.blocks[0]
        return Entered(x, first.product(first.norm(x), "in"))

    def run(self, pre: Tensor | Entered, taps: Iterable[Tap]) -> dict[Tap, Tensor]:
        """Run the blocks on sequences before ``ln_pre`` [B, N, D]; return the taps, window taps
        excepted.  N is free: a subset of the tokens is a sequence, too.

        In their place may stand what :meth:`enter` made of them, where the first block is to
        attend with all rows, and no tap is ``pre_tokens``.
        """
        taps = frozenset(taps)
        out: dict[Tap, Tensor] = {}
        entered = pre if isinstance(pre, Entered) else None
        if isinstance(pre, Tensor) and Tap("pre_tokens") in taps:
            out[Tap("pre_tokens")] = pre
        x = pre.x if isinstance(pre, Entered) else layer_norm(self.visual.ln_pre, pre)
        mid = x
        paths: dict[int, Tensor] = {}  # v-v states by start block, summed in float32
        self._collect_states(out, taps, 0, x, paths)
        for layer, need in enumerate(plan(taps, self.depth), 1):
            block = self.blocks[layer - 1]
            ready = entered if layer == 1 else None
            y = x if ready else block.norm(x)
            paths.update({s: x.float() for s in need.starts - paths.keys()})
            own_values = need.vv or need.values
            if ready:
                q, k, v = block.by_heads(ready.qkv)
            elif need.attention is Rows.ALL:
                q, k, v = block.project_in(y, "qkv")
            elif need.attention is Rows.CLASS:
                first = y[:, :1]  # on a GPU as many small products, unless the rows lie together
                first = first if y.device.type == "cpu" else first.contiguous()
                (q,), (k, v) = block.project_in(first, "q"), block.project_in(y, "kv")
            elif own_values:
                (v,) = block.project_in(y, "v")
            if need.values:
                self._collect_values(out, taps, layer, block, x, v)
            if need.vv:
                a = block.project_out(attend(v, v, v), "values")
                paths.update({s: paths[s] + a for s in need.starts})
                if Tap("vv_ffn", layer) in taps:
                    inner = x + a
                    out[Tap("vv_ffn", layer)] = inner + block.feed_forward(inner)
            if need.attention is not Rows.NONE:
                rows = x if need.attention is Rows.ALL else x[:, :1]
                mid = rows + block.project_out(attend(q, k, v))
                if Tap("mid", layer - 1) in taps:
                    out[Tap("mid", layer - 1)] = mid
            if need.output is not Rows.NONE:
                rows = mid if need.output is Rows.ALL else mid[:, :1]
                x = rows + block.feed_forward(rows)
            self._collect_states(out, taps, layer, x, paths)
        if Tap("cls") in taps:
            out[Tap("cls")] = self.project(x[:, 0])
        if Tap("cls_raw") in taps:
            out[Tap("cls_raw")] = x[:, 0] @ self.visual.proj
        return out

    def _collect_states(
        self,
        out: dict[Tap, Tensor],
        taps: frozenset[Tap],
        layer: int,
        x: Tensor,
        paths: Mapping[int, Tensor],
    ) -> None:
        """Store the taps of the states after ``layer``."""
        for tap in taps:
            if tap.layer != layer or tap.kind not in ("tokens", "tokens_proj", "vv", "vv_proj"):
                continue
            if tap.kind.startswith("vv") and layer >= tap.start:
                state = paths[tap.start].to(x.dtype)
            else:  # a v-v path that has not begun; a copy, so that no two taps share storage
                state = x.clone() if tap.kind == "vv" else x
            out[tap] = self.project(state) if tap.kind.endswith("proj") else state

    def _collect_values(
        self,
        out: dict[Tap, Tensor],
        taps: frozenset[Tap],
        layer: int,
        block: Block,
        x: Tensor,
        v: Tensor,
    ) -> None:
        """Store the taps of block ``layer``'s values ``v``; ``x`` is its input."""
        wanted = {tap.kind for tap in taps if tap.layer == layer and tap.kind in VALUE_KINDS}
        if "values" in wanted:
            out[Tap("values", layer)] = heads_joined(v)
        if not wanted - {"values"}:
            return
        joined = block.project_out(v, "values")
        if "values_proj" in wanted:
            out[Tap("values_proj", layer)] = self.project(joined)
        if "values_norm" in wanted:
            out[Tap("values_norm", layer)] = layer_norm(self.visual.ln_post, joined)
        if "values_block" in wanted:
            inner = x + joined
            out[Tap("values_block", layer)] = self.project(inner + block.feed_forward(inner))

    def project(self, x: Tensor) -> Tensor:
        """Return P . ln_post(x), [*, D] -> [*, E]; not normalised."""
        projected: Tensor = self.post_norm(x) @ self.visual.proj
        return projected

    def post_norm(self, x: Tensor) -> Tensor:
        """Return ln_post(x), [*, D] -> [*, D]."""
        return layer_norm(self.visual.ln_post, x)

    # -------------------------------------------------------------------------- resuming
    def resume(
        self,
        tokens: Tensor,
        first_block: int,
        adapters: Adapters | None = None,
        last_block: int | None = None,
        *,
        checkpointed: bool = False,
        attention: Literal["qk", "v"] = "qk",
    ) -> Tensor:
        """Run blocks ``first_block``..``last_block`` (default: all) on ``tokens`` =
        x_{first_block-1} [B, N, D].

        ``adapters``: a function ``(layer, x_l) -> x_l`` called after every block, or such
        functions of x_l alone by layer; tokens may join or leave the sequence there.
        Differentiable in the tokens and in what the adapters own; returns the last block's output
        [B, N, D], see :meth:`project`.  ``checkpointed``: keep the input of every block and run it
        again for the gradients, which are the same.  ``attention``: what the blocks attend with,
        queries and keys or, in their place, the values of this very stream.
        """
        if not 1 <= first_block <= self.depth + 1:
            raise ValueError(f"first_block={first_block} must be in 1..{self.depth + 1}")
        self.counters.resumed += len(tokens)
        x = tokens.to(self.dtype)
        for layer in range(first_block, (last_block or self.depth) + 1):
            block = self.blocks[layer - 1]
            run = block if attention == "qk" else block.with_values
            if checkpointed and torch.is_grad_enabled() and x.requires_grad:
                x = checkpoint(run, x, use_reentrant=False)
            else:
                x = run(x)
            x = adapted(adapters, layer, x)
        return x


def resize_positions(table: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """Resize the patch rows of a position table [1+n*n, D] to ``grid``; keep the class row.

    ``mode``: ``bicubic_aa`` (open_clip), ``bicubic`` (released FiLo) or ``bilinear`` (released
    AnomalyCLIP and FAPrompt), corners not aligned.  The native grid is returned unchanged.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    patches = table[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(
        patches,
        size=grid,
        mode="bilinear" if mode == "bilinear" else "bicubic",
        antialias=mode == "bicubic_aa",
        align_corners=False,
    )
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])
