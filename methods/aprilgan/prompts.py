"""Prompt ensembles of states and templates, and their encoding into one embedding per label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, stack

from zsad.methods.winclip.method import StateFeatures
from zsad.methods.winclip.prompts import NORMAL_STATES
from zsad.types import Explanation

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

__all__ = ["ANOMALOUS_STATES", "NORMAL_STATES", "TEMPLATES", "encode_states", "rank_states"]

ANOMALOUS_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")

_QUALITIES = ("bright", "blurry", "jpeg corrupted", "low resolution", "black and white", "cropped")
_MORE = ("bad", "dark", "good", "close-up")
TEMPLATES = (
    *(f"a {how} photo of {the} {{}}." for how in (*_QUALITIES, *_MORE) for the in ("a", "the")),
    *(f"a photo of {the} {size} {{}}." for size in ("large", "small") for the in ("a", "the")),
    *(f"a photo of {the} cool {{}}." for the in ("a", "the")),
    *(f"a photo of {who} {{}}." for who in ("a", "the", "my", "one")),
    *(
        f"{what} {the} {{}} in the scene."
        for what in ("there is", "this is")
        for the in ["a", "the"]
    ),
    "this is one {} in the scene.",
)
"""The 35 templates of the released code, in another order: their mean does not depend on it."""


def encode_states(
    class_name: str,
    states: tuple[Sequence[str], Sequence[str]],
    templates: Sequence[str],
    text: TextEncoder,
    *,
    unit_first: bool = True,
) -> StateFeatures:
    """Encode every (normal, anomalous) state of ``class_name`` in every template.

    A label's embedding is the unit mean of its prompts' embeddings; ``unit_first``: these are
    normalised before the mean is taken.
    """
    phrases = [state.format(class_name) for side in states for state in side]
    found = text.encode_texts([t.format(p) for p in phrases for t in templates]).float()
    if unit_first:
        found = F.normalize(found, dim=-1)
    means = found.unflatten(0, (len(phrases), len(templates))).mean(1)  # [S, E]
    n = len(states[0])
    pair = F.normalize(stack([means[:n].mean(0), means[n:].mean(0)]), dim=-1)
    return StateFeatures(pair, phrases, F.normalize(means, dim=-1), n)


def rank_states(cls: Tensor, text: StateFeatures, k: int, note: str) -> list[Explanation]:
    """Rank the state phrases by their cosine with an image's unit class embedding ``cls`` [E]."""
    best = (text.embeddings @ cls).topk(min(k, len(text.states)))
    return [
        Explanation(
            text=text.states[i],
            similarity=value,
            label="normal" if i < text.n_normal else "anomalous",
            source="template",
            rank=rank,
            note=note,
        )
        for rank, (value, i) in enumerate(zip(best.values.tolist(), best.indices.tolist()), start=1)
    ]
