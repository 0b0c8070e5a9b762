"""AnoVL (Deng et al. 2023): domain-aware prompts on v-v features, optional test-time adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble, fill, rank_phrases
from zsad.method import Method
from zsad.methods.anovl.adapter import Carried, adapt, adapt_in_turn, seeded
from zsad.methods.anovl.config import Config
from zsad.methods.anovl.prompts import STATES, templates, word
from zsad.methods.anovl.views import further_views
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
        start = backbone.vv_start(config.vv_blocks)
        if config.vv_last:
            start = backbone.depth - min(config.vv_last, backbone.depth) + 1
        self.dense = Tap("vv_proj", backbone.depth, start)
        self.draw = seeded(config.adapter)  # where the adapter's random numbers come from

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, self.dense, variant=self.config.encoder)

    # ---------------------------------------------------------------------------- views
    def views(self, images: Tensor) -> Iterable[Tensor]:
        """The views beside the image itself, where several are averaged."""
        return further_views(images) if self.config.views > 1 else ()

    def view_taps(self) -> frozenset[Tap]:
        return frozenset([CLS] if self.config.views > 1 else [])

    @property
    def carries(self) -> bool:
        """Whether the adapter's optimiser goes on from image to image."""
        return self.config.adapter.enabled and self.config.adapter.state == "kept"

    # ----------------------------------------------------------------- domain-aware text
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, DomainText]:
        """Encode 7 + 7 states in 66 templates per category.

        A label's embedding is the unit mean of its prompts, which are not normalised before.
        """
        prepared = {}
        for category in categories:
            names = self.config.names
            chosen = templates(category, self.config.domain, names)
            phrases = fill(STATES, word(category, names))
            states = encode_ensemble(phrases, text, chosen, unit_first=False)
            prompts = None
            if self.config.adapter.enabled:
                sentences = [t.format(s) for s in states.phrases for t in chosen]
                prompts = F.normalize(text.encode_texts(sentences).float(), dim=-1)
            prepared[category.key] = DomainText(states, prompts)
        return prepared

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[DomainText]) -> Scores:
        """Image: probability [B] from the class token, mean over the views; map: probabilities
        [B, h, w].

        ``parts``: the probabilities of the ``views`` [B, V]; with the adapter its ``losses``
        [B, steps] and the ``patches`` [B, L, E] that it made.
        """
        text: list[DomainText] = [context.text[c.key] for c in context.categories]
        pair = torch.stack([t.states.pair for t in text])
        patches = features.patches(self.dense).float()
        parts: dict[str, Tensor] = {}
        carry: dict[str, Carried] = {}
        adapter = self.config.adapter
        if adapter.enabled:
            prompts = torch.stack([t.prompts for t in text if t.prompts is not None])
            if self.carries:
                keys = [c.key for c in context.categories]
                before = {k: v for k, v in context.carry.items() if k in keys}
                fitted, carry = adapt_in_turn(
                    patches, prompts, pair, keys, before, adapter, self.draw
                )
            else:
                start = self.draw(0, prompts.shape[1], *patches.shape[1:])
                fitted = adapt(patches, prompts, pair, adapter, start)
            patches = fitted.patches
            parts = {"losses": fitted.losses, "patches": patches}
        logits = dense.similarity(patches, pair, features.grid, 1 / self.config.temperature)
        views = [self.probability(f[CLS], pair) for f in (features, *context.views)]
        parts["views"] = torch.stack(views, 1)
        maps = [pooled(dense.pair_probability(logits), self.config.pool)]
        return Scores(maps, parts["views"].mean(1), "values", parts, carry=carry)

    def probability(self, cls: Tensor, pair: Tensor) -> Tensor:
        """Return the anomaly probability [B] of class embeddings [B, E]."""
        cosine = torch.einsum("be,bce->bc", F.normalize(cls.float(), dim=-1), pair)
        return (cosine / self.config.temperature).softmax(-1)[:, 1]

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(align_corners=True, blur="gaussian" if sigma else "none", sigma=sigma)

    def explain(self, scored: Scored[DomainText], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the class token."""
        features, context = scored.features, scored.context
        cls = F.normalize(features[CLS].float(), dim=-1)
        return [
            rank_phrases(unit, context.text[c.key].states, k, "averaged over 66 sentences")
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
