"""Validates zsad-tiny while it trains: plain two-prompt CLIP on fresh pictures.

``seen_*``: the named categories and defects of the train group, new pictures.  ``heldout_*``: the
held-out group at one seed of its own, for the curve only; reported figures use other seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from zsad.benchmarks.tiny.batches import MEAN, STD
from zsad.data.synthetic.generator import CATEGORIES, draw
from zsad.metrics.functional import Curve, auroc

SEED = 900
COUNT = {"train": 8, "test": 12}  # normal and anomalous pictures per category
PROMPTS = ("a photo of a normal {}", "a photo of a damaged {}")


def separation(labels: ArrayLike, scores: ArrayLike) -> float:
    """The exact AUROC of scores; ``labels``: true where anomalous."""
    anomalous = np.asarray(labels, bool)
    return auroc(Curve.from_scores(np.asarray(scores)[~anomalous], np.asarray(scores)[anomalous]))


@cache
def pictures(group: str, seed: int, count: int) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Per category: images uint8 [N, n, n, 3] (normal first) and masks [N, n, n]."""
    out = {}
    for kind in CATEGORIES.values():
        if kind.group == group:
            made = [
                draw(kind, seed=seed, split="val", index=i, label=label)
                for label in (0, 1)
                for i in range(count)
            ]
            out[kind.key] = (
                torch.from_numpy(np.stack([m.image for m in made])),
                np.stack([m.mask for m in made]),
            )
    return out


@torch.no_grad()
def validate(
    model: Any, tokens: Callable[[list[str]], Tensor], seed: int = SEED
) -> dict[str, float]:
    """Mean over categories of image AUROC (class token; class token + map maximum) and pixel
    AUROC (last layer's patches: by the text, and by the trainer's helper direction)."""
    result: dict[str, float] = {}
    for name, group in (("seen", "train"), ("heldout", "test")):
        rows = []
        for key, (images, masks) in pictures(group, seed, COUNT[group]).items():
            text = model.encode_text(
                tokens([p.format(CATEGORIES[key].class_name) for p in PROMPTS])
            ).float()
            text = F.normalize(text, dim=-1)
            direction = (text[1] - text[0]) * model.logit_scale.exp().clamp(max=100)
            x = (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
            with torch.autocast("cpu", torch.bfloat16):
                cls, dense = model.visual(model.visual.embed(x), (8,))
            score = torch.sigmoid(F.normalize(cls.float(), dim=-1) @ direction)
            labels = masks.any((1, 2))
            row = {"image": separation(labels, score)}
            last = F.normalize(dense["last"].float(), dim=-1)
            patches = {
                "text": torch.sigmoid(last @ direction),
                "probe": torch.sigmoid(model.probe(1, last, model.text_projection)),
            }
            for path, patch in patches.items():
                side = round(patch.shape[1] ** 0.5)
                maps = F.interpolate(patch.view(-1, 1, side, side), (112, 112), mode="bilinear")[
                    :, 0
                ]
                row[f"pixel {path}"] = separation(masks[:, ::2, ::2].ravel(), maps.numpy().ravel())
                if path == "probe":
                    row["image+map"] = separation(labels, score + maps.flatten(1).amax(1))
            rows.append(row)
        result |= {f"{name}_{k}": float(np.mean([r[k] for r in rows])) for k in rows[0]}
    return result
