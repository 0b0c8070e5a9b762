"""AnoVL (Deng et al. 2023): domain-aware prompts on v-v features, optional test-time adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble, fill, rank_phrases
from zsad.method import Method
from zsad.methods.anovl.adapter import adapt
from zsad.methods.anovl.config import Config
from zsad.methods.anovl.prompts import STATES, templates
from zsad.types import (
    BackboneInfo,
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


@dataclass(frozen=True)
class DomainText:
    """Text side of a category: its states, and all unit prompt embeddings ``prompts`` [T, E] for
    the adapter (None where it is off)."""

    states: EnsembleFeatures
    prompts: Tensor | None = None


class AnoVL(Method[Config, DomainText]):
    """V-v patch features compared with a domain-aware prompt ensemble."""

    name: ClassVar[str] = "anovl"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.dense = Tap("vv_proj", backbone.depth, backbone.vv_start(config.vv_blocks))

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, self.dense)

    # ----------------------------------------------------------------- domain-aware text
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, DomainText]:
        """Encode 7 + 7 states in 66 templates per category.

        A label's embedding is the unit mean of its prompts, which are not normalised before.
        """
        prepared = {}
        for category in categories:
            chosen = templates(category, self.config.domain)
            phrases = fill(STATES, category.class_name)
            states = encode_ensemble(phrases, text, chosen, unit_first=False)
            prompts = None
            if self.config.adapter.enabled:
                sentences = [t.format(s) for s in states.phrases for t in chosen]
                prompts = F.normalize(text.encode_texts(sentences).float(), dim=-1)
            prepared[category.key] = DomainText(states, prompts)
        return prepared

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[DomainText]) -> Scores:
        """Image: probability [B] from the class token; map: probabilities [B, h, w]."""
        text: list[DomainText] = [context.text[c.key] for c in context.categories]
        pair = torch.stack([t.states.pair for t in text])
        scale = 1 / self.config.temperature
        patches = features.patches(self.dense).float()
        if self.config.adapter.enabled:
            prompts = torch.stack([t.prompts for t in text if t.prompts is not None])
            patches = adapt(patches, prompts, pair, self.config.adapter)
        logits = dense.similarity(patches, pair, features.grid, scale)
        cls = F.normalize(features[CLS].float(), dim=-1)
        image = (scale * torch.einsum("be,bce->bc", cls, pair)).softmax(-1)[:, 1]
        return Scores([pooled(dense.pair_probability(logits), self.config.pool)], image, "values")

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(align_corners=True, blur="gaussian" if sigma else "none", sigma=sigma)

    def explain(self, scored: Scored[DomainText], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the class token."""
        features, context = scored.features, scored.context
        cls = F.normalize(features[CLS].float(), dim=-1)
        return [
            rank_phrases(unit, context.text[c.key].states, k, "mean over 66 templates")
            for unit, c in zip(cls, context.categories)
        ]


def pooled(maps: Tensor, side: int) -> Tensor:
    """Return the mean of ``side`` x ``side`` patches around every patch: [B, h, w].

    The border repeats its patches.
    """
    if side == 1:
        return maps
    padded = F.pad(maps[:, None], [side // 2] * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)[:, 0]
