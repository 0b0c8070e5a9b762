"""What the text encoder does to sequences of prompts: join, overwrite, run a block in parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsad.backbones.blocks import Block, attend


def join(prefix: Tensor, suffix: Tensor) -> Tensor:
    """Join a prefix [Bp, p, W] and suffixes [Bs, T, s, W] to prompts [B, T, p+s, W]."""
    batch, prompts = max(len(prefix), len(suffix)), suffix.shape[1]
    return torch.cat(
        [
            prefix[:, None].expand(batch, prompts, -1, -1),
            suffix.expand(batch, -1, -1, -1).to(prefix.dtype),
        ],
        -2,
    )


def deep_rows(tokens: Tensor, lead: torch.Size) -> Tensor:
    """Return deep tokens [n, W] as they are, those of rows [*, T, n, W] as [N, n, W]."""
    if tokens.dim() == 2:
        return tokens
    if tokens.dim() != len(lead) + 2 or any(
        own not in (1, count) for own, count in zip(tokens.shape, lead)
    ):
        raise ValueError(
            f"deep tokens {tuple(tokens.shape)} do not fit prompts {tuple(lead)}; give [n, W], or "
            f"[n, W] for each of them"
        )
    return tokens.expand(*lead, -1, -1).flatten(0, -3)


def overwrite(x: Tensor, deep: Sequence[Tensor] | None, block: int, first: int) -> Tensor:
    """Put ``deep[block - 1]``, [n, W] or [*, n, W], at positions 1..n of sequences [*, S, W] that
    begin at ``first``.

    Block 0 is untouched.  The start token at position 0 always passes through.
    """
    if not deep or not 0 < block <= len(deep):
        return x
    tokens = deep[block - 1].to(x.dtype)
    begin, end = max(1, first), min(1 + tokens.shape[-2], first + x.shape[-2])
    if end <= begin:
        return x
    rows = tokens[..., begin - 1 : end - 1, :].expand(*x.shape[:-2], -1, -1)
    return torch.cat([x[..., : begin - first, :], rows, x[..., end - first :, :]], -2)


def last_block(block: Block, x: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    """Run a block on [N, S, W] for one row of each sequence; ``mask`` [N, 1, 1, S]."""
    y = block.norm(x)
    n = torch.arange(len(x), device=x.device)
    (q,) = block.project_in(y[n, rows][:, None], "q")
    k, v = block.project_in(y, "kv")
    return block.after(x[n, rows][:, None], attend(q, k, v, mask=mask))


def _with_prefix(keys: Tensor, own: Tensor) -> Tensor:
    """Put a prefix's keys [Bp, heads, p, d] before those of its suffixes [B, T, heads, s, d]."""
    shape = (own.shape[0], own.shape[1], *keys.shape[1:])
    return torch.cat([keys[:, None].expand(shape), own], -2)


def suffix_block(block: Block, tail: Tensor, keys: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Run a block on suffixes [Bs, T, s, W] that also see their prefix's keys and values."""
    q, k, v = block.project_in(block.norm(tail), "qkv")
    if len(keys[0]) > len(tail):  # one set of suffixes, many prefixes: they differ from here on
        q, k, v = (t.expand(len(keys[0]), *t.shape[1:]) for t in (q, k, v))
    k, v = _with_prefix(keys[0], k), _with_prefix(keys[1], v)
    heads = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), mask=mask)
    out: Tensor = tail + block.project_out(heads).unflatten(0, q.shape[:2])
    return out + block.feed_forward(out)


def last_suffix_block(
    block: Block, x: Tensor, keys: tuple[Tensor, Tensor], rows: Tensor, mask: Tensor
) -> Tensor:
    """As :func:`suffix_block` for one row of each suffix: [B*T, s, W] -> [B*T, 1, W].

    ``mask`` [B*T, p+s]: True where a key counts for the row.
    """
    y = block.norm(x)
    n = torch.arange(len(x), device=x.device)
    (q,) = block.project_in(y[n, rows][:, None], "q")
    own = block.project_in(y, "kv")
    many = len(keys[0])
    prompts = len(x) // many
    k, v = (
        _with_prefix(prefix, t.unflatten(0, (many, prompts))).flatten(0, 1)
        for prefix, t in zip(keys, own)
    )
    return block.after(x[n, rows][:, None], attend(q, k, v, mask=mask[:, None, None]))
