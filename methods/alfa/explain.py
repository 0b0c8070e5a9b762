"""Reasons for ALFA's score (Sec. 5.4): the abnormal descriptions nearest to the image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.windows import window_region
from zsad.on_device import picked, told
from zsad.types import Explanation, ImageFeatures, Tap

if TYPE_CHECKING:
    from zsad.methods.alfa.method import PromptFeatures


def explain_image(
    features: ImageFeatures,
    windows: Tap,
    text: PromptFeatures,
    weight: Tensor,
    contextual: Tensor,
    k: int,
) -> list[Explanation]:
    """Return the ``k`` best of the kept prompts of each label and the descriptors, by cosine.

    ``features``: one image.  ``weight``, ``contextual`` [T].  The region of each is the window
    with the highest cosine.
    """
    f = F.normalize(features[Tap("cls")][0].float(), dim=-1)
    window = F.normalize(features[windows][0].float(), dim=-1)

    labels, weights, templates, apart = told(text.labels, weight, text.template, contextual)

    def best(label: int) -> list[Explanation]:
        kept = [t for t, own in enumerate(labels) if own == label and weights[t] > 0]  # [K]
        candidates = picked(text.embeddings, kept)
        candidates = torch.cat([candidates, text.descriptors]) if label else candidates
        found = (candidates @ f).topk(min(k, len(candidates)))
        peaks = (candidates[found.indices] @ window.T).argmax(-1)
        reasons = []
        for i, value, peak in zip(*told(found.indices, found.values, peaks)):
            if i < len(kept):
                row = kept[i]
                name, source = text.texts[row], "template" if templates[row] else "llm"
                note = _note(apart[row])
            else:
                name, source = text.prompts.descriptors[i - len(kept)], "llm"
                note = "one of the prompt bank's words for what can be wrong"
            region = window_region(peak, features.grid, windows.layer)
            reason = Explanation(name, value, source=source, region=region, note=note)
            reasons.append(reason if label else replace(reason, label="normal"))
        return reasons

    both = sorted([*best(0), *best(1)], key=lambda reason: -reason.similarity)
    return [replace(reason, rank=rank) for rank, reason in enumerate(both, start=1)]


def _note(contextual: float) -> str:
    """Why a prompt was kept.  One with a score of 0 was kept because no other of its label was."""
    score = f"contextual score {contextual:.2f}"
    if contextual > 0:
        return f"lies apart from the other label's prompts in this picture ({score})"
    return f"kept because every prompt of its label lies among the other label's ({score})"
