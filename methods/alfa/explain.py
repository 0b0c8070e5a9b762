"""Reasons for ALFA's score (Sec. 5.4): the abnormal descriptions nearest to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.windows import window_region
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
    """Return the ``k`` best of the kept abnormal prompts and the descriptors, by cosine.

    ``features``: one image.  ``weight``, ``contextual`` [T].  The region of each is the window
    with the highest cosine.
    """
    kept = ((text.labels == 1) & (weight > 0)).nonzero().flatten()  # [K]
    candidates = torch.cat([text.embeddings[kept], text.descriptors])
    f = F.normalize(features[Tap("cls")][0].float(), dim=-1)
    best = (candidates @ f).topk(min(k, len(candidates)))
    window = F.normalize(features[windows][0].float(), dim=-1)
    peaks = (candidates[best.indices] @ window.T).argmax(-1).tolist()
    reasons = []
    for rank, (i, value, peak) in enumerate(
        zip(best.indices.tolist(), best.values.tolist(), peaks), start=1
    ):
        if i < len(kept):
            row = int(kept[i])
            name, source = text.texts[row], "template" if bool(text.template[row]) else "llm"
            note = f"contextual score {float(contextual[row]):.2f}"
        else:
            name, source = text.prompts.descriptors[i - len(kept)], "llm"
            note = "descriptor of the interpretability query"
        region = window_region(peak, features.grid, windows.layer)
        reasons.append(Explanation(name, value, "anomalous", source, rank, region, note))
    return reasons
