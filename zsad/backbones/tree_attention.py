"""Attention within a tree of prompts, a run of nodes at a time.

A node attends to its ancestors alone, a few dozen of several hundred nodes.  Nodes are laid out
prompt by prompt, so those that follow each other have most ancestors in common: for every run of
them the keys that any of it sees are gathered, and all runs are one batch of small attentions.
That changes the order of sums and nothing else.  It is done where a head scores
(:class:`zsad.backbones.engines.heads.HeadEngine`); training keeps the figures it has always had.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from zsad.backbones.blocks import Block, attend

RUN = 16  # nodes; of 8 to 96 the fastest at the widths of zsad-tiny and ViT-L
WORTH = 0.5  # share of all pairs of nodes from which on gathering is not worth it
_in_runs: ContextVar[bool] = ContextVar("in_runs", default=False)


@contextmanager
def used() -> Iterator[None]:
    """Within, prompts on a CPU attend run by run where no gradient is wanted."""
    token = _in_runs.set(True)
    try:
        yield
    finally:
        _in_runs.reset(token)


def wanted(device: torch.device) -> bool:
    """Whether prompts attend run by run here and now."""
    return (
        _in_runs.get()
        and device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


class Runs(NamedTuple):
    """``keys`` [R, K]: the nodes that each run of queries sees; ``mask`` [R, RUN, K]: 0 where a
    query attends to one of them, else -inf.  What is padded attends to the first."""

    keys: Tensor
    mask: Tensor


def runs_of(visible: Tensor) -> Runs | None:
    """Cut the queries of ``visible`` [N, M] into runs; None where they see too much for that."""
    parts = visible.split(RUN)
    seen = [part.any(0).nonzero()[:, 0] for part in parts]
    most = max(len(nodes) for nodes in seen)
    if len(parts) * RUN * most > WORTH * visible.numel():
        return None
    keys = torch.zeros(len(parts), most, dtype=torch.long)
    sees = torch.zeros(len(parts), RUN, most, dtype=torch.bool)
    for i, (part, nodes) in enumerate(zip(parts, seen)):
        keys[i, : len(nodes)] = nodes
        sees[i, : len(part), : len(nodes)] = part[:, nodes]
        sees[i, len(part) :, 0] = True
    return Runs(keys, torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf))


def run_block(block: Block, x: Tensor, runs: Runs) -> Tensor:
    """Run a block on the nodes of a tree [B, N, W]."""
    return last_block(block, x, slice(None), runs)


def last_block(block: Block, x: Tensor, ends: Tensor | slice, runs: Runs) -> Tensor:
    """Run a block on [B, N, W] for the nodes ``ends`` [T] alone: [B, T, W]; ``runs``: of those."""
    y = block.norm(x)
    # two products: the second one's result is gathered from, which wants it in one piece
    queries = block.product(y[:, ends], "in", slice(block.width))
    rest = block.product(y, "in", slice(block.width, None))
    return block.after(x[:, ends], _attend(queries, rest, runs, block.heads))


def _attend(queries: Tensor, rest: Tensor, runs: Runs, heads: int) -> Tensor:
    """Queries [B, Q, W], keys and values [B, N, 2W] -> heads [B, heads, Q, d]."""
    batch, count, width = queries.shape
    many = len(runs.keys)
    full = F.pad(queries, (0, 0, 0, many * RUN - count))
    gathered = rest.index_select(1, runs.keys.flatten())
    k, v = gathered.view(batch * many, -1, 2, heads, width // heads).transpose(1, 3).unbind(2)
    q = full.view(batch * many, RUN, heads, -1).transpose(1, 2)
    mask = runs.mask.to(q).expand(batch, -1, -1, -1).reshape(batch * many, 1, RUN, -1)
    found = attend(q, k, v, mask=mask).transpose(1, 2)
    return found.reshape(batch, many * RUN, heads, -1)[:, :count].transpose(1, 2)
