"""CLIP (Radford et al. 2021) as a zero-shot anomaly detector, in the reading of the papers.

Image score: softmax over the two labels of <class token, label text> / temperature.  Anomaly
map: the same for every patch token of the last block, carried through the final layer norm and
the projection although it was never trained for that ("plain dense CLIP").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble, rank_phrases
from zsad.maps import similarity
from zsad.method import Method
from zsad.methods.clip.config import Config
from zsad.methods.clip.prompts import build_prompts
from zsad.types import (
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    ScoreContext,
    Scored,
    Scores,
    Tap,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

CLS = Tap("cls")


class Clip(Method[Config, EnsembleFeatures]):
    """Two-prompt CLIP and the CLIP-AC ensembles."""

    name: ClassVar[str] = "clip"

    @property
    def dense(self) -> Tap:
        """P . ln_post of the last block's tokens."""
        return Tap("tokens_proj", self.backbone.depth)

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, self.dense)

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, EnsembleFeatures]:
        """Encode the prompts; a label's embedding is the unit mean of its unit prompts."""
        return {
            c.key: encode_ensemble(build_prompts(self.config, c.class_name), text)
            for c in categories
        }

    def score(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Scores:
        """Image: probability [B]; map: pair logits [B, 2, h, w] (cosines / temperature)."""
        text = torch.stack([context.text[c.key].pair for c in context.categories])  # [B, 2, E]
        scale = 1.0 / self.config.temperature
        logits = similarity(features.patches(self.dense).float(), text, features.grid, scale)
        cls = F.normalize(features[CLS].float(), dim=-1)
        cosine = torch.einsum("be,bce->bc", cls, text)  # [B, 2]
        return Scores([logits], (cosine * scale).softmax(-1)[:, 1])

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(blur="gaussian" if sigma else "none", sigma=sigma)

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Mix the map's maximum in with weight ``map_max`` (0 in all papers)."""
        weight = self.config.map_max
        if not weight:
            return scores.image
        return (1 - weight) * scores.image + weight * built.final.amax(dim=(-2, -1))

    def explain(self, scored: Scored[EnsembleFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the prompts of both labels by their cosine with the class token."""
        features, context = scored.features, scored.context
        cls = F.normalize(features[CLS].float(), dim=-1)
        return [
            rank_phrases(unit, context.text[c.key], k) for unit, c in zip(cls, context.categories)
        ]
