"""Prompts as one tree: what several prompts begin with is run once, not once per prompt.

In a causal tower the state of a position depends on the tokens up to it alone, so two prompts
share all states up to the first token in which they differ.  The distinct beginnings of a set of
prompts form a tree; its nodes are laid out as one sequence in which every node attends to its
ancestors and itself.  FiLo's nine positions behind a description, for one, differ in their last
few tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zsad.backbones.tree_attention import Runs, runs_of
from zsad.on_device import uploaded


class PromptTree(NamedTuple):
    """``ids`` [N]: token of each node, parents first; ``position`` [N] in its prompts; ``visible``
    [N, N]: True where a row's node attends to a column's; ``ends`` [T]: the node at which each
    prompt ends.  ``runs``: what all nodes, and what the ends see, run by run, where that was asked
    for and pays."""

    ids: Tensor
    position: Tensor
    visible: Tensor
    ends: Tensor
    runs: tuple[Runs, Runs] | None = None

    def to(self, device: torch.device) -> PromptTree:
        ids, position, visible, ends = (uploaded(t, device) for t in self[:4])
        return PromptTree(ids, position, visible, ends, self.runs)

    def in_runs(self) -> PromptTree:
        """The tree with its runs, on the host; as it is where one of them does not pay."""
        nodes, of_ends = runs_of(self.visible), runs_of(self.visible[self.ends])
        return self if nodes is None or of_ends is None else self._replace(runs=(nodes, of_ends))


def tree_of(rows: Sequence[Sequence[int]], learned: int = 0) -> PromptTree:
    """Merge T prompts, each given by the ids of its tokens up to its end of text.

    ``learned``: how many positions behind the start token hold learned vectors instead of words.
    All prompts share these, whatever their ids; they are nodes 1..learned.
    """
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    children: dict[tuple[int, int], int] = {}
    for row in rows:
        node = -1
        for depth, token in enumerate(row):
            key = (node, -1 if 0 < depth <= learned else token)
            if key not in children:
                children[key] = len(tokens)
                tokens.append(token)
                parents.append(node)
                depths.append(depth)
            node = children[key]
        ends.append(node)
    visible = torch.eye(len(tokens), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            visible[node] |= visible[parent]
    return PromptTree(torch.tensor(tokens), torch.tensor(depths), visible, torch.tensor(ends))
