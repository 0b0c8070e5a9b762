"""Prompt ensembles: phrases about a normal and an anomalous object, averaged to one embedding each.

WinCLIP's compositional ensemble and its descendants: every phrase stands in every template, and a
label's embedding is the unit mean of its prompts' embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, stack

from zsad.types import Explanation

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder


@dataclass(frozen=True)
class EnsembleFeatures:
    """Text side of one category.

    ``pair`` [2, E]: unit label embeddings.  ``phrases``: the first ``n_normal`` of them normal,
    with their unit ``embeddings`` [S, E] (mean over the templates).
    """

    pair: Tensor
    phrases: list[str]
    embeddings: Tensor
    n_normal: int


def encode_ensemble(
    phrases: tuple[Sequence[str], Sequence[str]],
    text: TextEncoder,
    templates: Sequence[str] = ("{}",),
    *,
    unit_first: bool = True,
) -> EnsembleFeatures:
    """Encode every (normal, anomalous) phrase in every template.

    A label's embedding is the unit mean of its prompts' embeddings; ``unit_first``: these are
    normalised before the mean is taken.
    """
    both, n = [*phrases[0], *phrases[1]], len(phrases[0])
    found = text.encode_texts(in_templates(both, templates)).float()
    if unit_first:
        found = F.normalize(found, dim=-1)
    means = found.unflatten(0, (len(both), len(templates))).mean(1)  # [S, E]
    pair = F.normalize(stack([means[:n].mean(0), means[n:].mean(0)]), dim=-1)
    return EnsembleFeatures(pair, both, F.normalize(means, dim=-1), n)


def fill(states: tuple[Sequence[str], Sequence[str]], name: str) -> tuple[list[str], list[str]]:
    """Return (normal, anomalous) state phrases with ``name`` in their places."""
    normal, anomalous = ([s.format(name) for s in side] for side in states)
    return normal, anomalous


def in_templates(phrases: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return every phrase in every template, phrase by phrase."""
    return [template.format(phrase) for phrase in phrases for template in templates]


def rank_phrases(
    unit: Tensor | Sequence[float], text: EnsembleFeatures, k: int, note: str = ""
) -> list[Explanation]:
    """Return the ``k`` phrases of each label with the highest cosine with ``unit`` [E], a unit
    vector such as an image's class embedding; highest first.  Instead of the vector, the cosines
    of all phrases may be given as numbers."""
    cosines = (text.embeddings @ unit).tolist() if isinstance(unit, Tensor) else unit
    order = sorted(range(len(cosines)), key=lambda i: -cosines[i])
    normal = [i for i in order if i < text.n_normal][:k]
    anomalous = [i for i in order if i >= text.n_normal][:k]
    return [
        Explanation(
            text=text.phrases[i],
            similarity=cosines[i],
            label="normal" if i < text.n_normal else "anomalous",
            source="template",
            rank=rank,
            note=note,
        )
        for rank, i in enumerate(sorted([*normal, *anomalous], key=order.index), start=1)
    ]
