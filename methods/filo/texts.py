"""FG-Des (section 3.2): from prompts and image vectors to the two label embeddings.

Only the positions that an image needs are encoded, images that need the same ones are encoded
together, and what prompts of an image have in common from their start is run once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.prompt_learning import PromptLearner, encode
from zsad.methods.filo.prompts import Wording
from zsad.on_device import picked

if TYPE_CHECKING:
    from zsad.backbones.text import PromptTokens, TextEncoder


@dataclass(frozen=True)
class PromptTable:
    """The tokenised prompts of one category; ``fixed``: unit features [1, T, E] of the normal
    and abnormal prompts where no image changes them."""

    wording: Wording
    normal: PromptTokens
    abnormal: PromptTokens
    fixed: tuple[Tensor, Tensor] | None = None

    def choose(self, positions: tuple[int, ...] | None) -> list[int]:
        """Indices of the abnormal prompts at ``positions`` (None: all), state by state."""
        step = self.wording.n_positions
        cells = range(step) if positions is None or step == 1 else positions
        return [state * step + p for state in range(len(self.wording.reasons)) for p in cells]


@dataclass(frozen=True)
class TextSide:
    """``pair`` [B, 2, E]: unit label embeddings; ``abnormal``: per image the unit features
    [Ta, P, E] of its abnormal prompts at its P positions."""

    pair: Tensor
    abnormal: list[Tensor]


def tokenize(wording: Wording, text: TextEncoder) -> PromptTable:
    """Tokenise the prompts of a category."""
    return PromptTable(wording, text.tokenize(wording.normal), text.tokenize(wording.abnormal))


def text_side(
    learners: tuple[PromptLearner | None, PromptLearner | None],
    tables: Sequence[PromptTable],
    positions: Sequence[tuple[int, ...] | None],
    unit_image: Tensor,
    text: TextEncoder,
    shares: Tensor | None = None,
) -> TextSide:
    """Encode the prompts of every image of a batch.

    ``learners``: normal, abnormal; ``tables``: one per image; ``positions``: cell indices per
    image, None for all nine; ``unit_image`` [B, E]: what the meta-nets see.  A label's embedding
    is the unit mean of its unit prompts ("group averaging"), over the cells by their ``shares``
    [B, 9] where these are given.
    """
    batch = unit_image.shape[0]
    normal: list[Tensor] = [unit_image] * batch
    abnormal: list[Tensor] = [unit_image] * batch
    for table, rows in _groups(tables):
        chosen = picked(unit_image, rows)
        found = table.fixed[0] if table.fixed else encode(learners[0], table.normal, chosen, text)
        for row, value in zip(rows, found.expand(len(rows), -1, -1)):
            normal[row] = F.normalize(value.mean(0), dim=-1)
    for (table, cells), rows in _groups_at(tables, positions):
        index = table.choose(cells)
        if table.fixed:
            found = table.fixed[1][:, index]
        else:
            found = encode(learners[1], table.abnormal.at(index), picked(unit_image, rows), text)
        states = found.unflatten(1, (len(table.wording.reasons), -1))  # [B, Ta, P, E]
        for row, value in zip(rows, states.expand(len(rows), -1, -1, -1)):
            abnormal[row] = value
    if shares is None:
        means = [a.flatten(0, 1).mean(0) for a in abnormal]
    else:
        means = [torch.einsum("tpe,p->te", a, w).mean(0) for a, w in zip(abnormal, shares)]
    unit_abnormal = [F.normalize(m, dim=-1) for m in means]
    pair = torch.stack([torch.stack([n, a]) for n, a in zip(normal, unit_abnormal)])
    return TextSide(pair, abnormal)


class PairCache:
    """Label embeddings of images seen before, valid while the prompt learners stay as they are.

    An entry is used only for the very image vector that it was made for.  9 kB an image.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Tensor, Tensor]] = {}
        self._state: tuple[int, ...] = ()

    def begin(self, parameters: Sequence[Tensor]) -> None:
        """Drop everything if a parameter has changed."""
        state = tuple(v for p in parameters for v in (p._version, p.data_ptr()))
        if state != self._state:
            self._entries, self._state = {}, state

    def get(self, names: Sequence[str], unit_image: Tensor) -> Tensor | None:
        """Return the pairs [B, 2, E] of image vectors [B, E], or None if one is unknown."""
        known = [self._entries.get(n) for n in names]
        found = [
            k[1]
            for k, vector in zip(known, unit_image)
            if k is not None and torch.equal(k[0], vector.detach().cpu())
        ]
        if not found or len(found) < len(unit_image):
            return None
        return torch.stack(found).to(unit_image)

    def put(self, names: Sequence[str], unit_image: Tensor, pairs: Tensor) -> None:
        """Keep the pairs [B, 2, E] of image vectors [B, E]."""
        for name, vector, pair in zip(names, unit_image.detach().cpu(), pairs.detach().cpu()):
            self._entries[name] = (vector.clone(), pair.clone())


def _groups(tables: Sequence[PromptTable]) -> list[tuple[PromptTable, list[int]]]:
    """Images by table, in order of appearance."""
    return [(t, rows) for (t, _), rows in _groups_at(tables, [None] * len(tables))]


def _groups_at(
    tables: Sequence[PromptTable], positions: Sequence[tuple[int, ...] | None]
) -> list[tuple[tuple[PromptTable, tuple[int, ...] | None], list[int]]]:
    """Images by table and positions, in order of appearance."""
    groups: dict[tuple[int, tuple[int, ...] | None], list[int]] = {}
    for row, (table, cells) in enumerate(zip(tables, positions)):
        groups.setdefault((id(table), cells), []).append(row)
    return [((tables[rows[0]], cells), rows) for (_, cells), rows in groups.items()]
