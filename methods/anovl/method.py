"""AnoVL (Deng et al. 2023): domain-aware prompts on v-v features, optional test-time adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.components.prompt_ensemble import (
    EnsembleFeatures,
    encode_ensemble,
    fill,
    in_templates,
    rank_phrases,
)
from zsad.method import Method
from zsad.methods.anovl import halves
from zsad.methods.anovl.adapter import Carried, Fitted, adapt, adapt_in_turn, seeded
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
AdaptOne = Callable[[int, int, dict[str, Tensor]], Fitted]  # see adapt_in_turn


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
        self.halves = config.script == "visa"
        self.draw = seeded(config.adapter)  # where the adapter's random numbers come from

    def feature_request(self) -> FeatureRequest:
        wanted = FeatureRequest.of(CLS, self.dense, variant=self.config.encoder)
        return replace(wanted, frame="halves") if self.halves else wanted

    # ---------------------------------------------------------------------------- views
    def views(self, images: Tensor) -> Iterable[Tensor]:
        """The views beside the image itself, where several are averaged."""
        return further_views(images) if self.config.views > 1 else ()

    def view_taps(self) -> frozenset[Tap]:
        if self.halves:
            return frozenset([CLS, self.dense])
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
            if self.config.adapter.enabled and not self.halves:
                said = in_templates(states.phrases, chosen)
                prompts = F.normalize(text.encode_texts(said).float(), dim=-1)
            prepared[category.key] = DomainText(states, prompts)
        return prepared

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[DomainText]) -> Scores:
        """Image: probability [B] from the class token, mean over the views or the two squares; map:
        probabilities [B, h, w], or of joined squares [B, S, S].

        ``parts``: the probabilities of the ``views`` [B, V]; with the adapter its ``losses``
        [B, steps] and the ``patches`` [B, L, E] that it made ([B, 2, L, E] of squares).
        """
        text: list[DomainText] = [context.text[c.key] for c in context.categories]
        pair = torch.stack([t.states.pair for t in text])
        patches, parts, carry = self.patches(features, context, pair)
        if self.halves:
            maps = self.joined_maps(patches, pair, features.grid, context.shifts)
        else:
            maps = self.maps(patches, pair, features.grid)
        views = [self.probability(f[CLS], pair) for f in (features, *context.views)]
        parts["views"] = torch.stack(views, 1)
        return Scores([maps], parts["views"].mean(1), "values", parts, carry=carry)

    def patches(
        self, features: ImageFeatures, context: ScoreContext[DomainText], pair: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Carried]]:
        """Return the patch tokens that maps are made of, [B, L, E] or [B, 2, L, E] of squares, what
        the adapter has to say, and what goes on to the next image."""
        patches = features.patches(self.dense).float()
        if self.halves:
            right = context.views[0].patches(self.dense).float()
            patches = torch.stack([patches, right], 1)
        adapter = self.config.adapter
        if not adapter.enabled:
            return patches, {}, {}
        kept = self.carries
        if not (kept or self.halves):
            prompts = self.prompts(context)
            start = self.draw(0, prompts.shape[1], *patches.shape[1:])
            fitted = adapt(patches, prompts, pair, adapter, start)
            return fitted.patches, {"losses": fitted.losses, "patches": fitted.patches}, {}
        keys = [c.key for c in context.categories]
        one = self._half(patches, pair, context, features.grid) if self.halves else None
        before = {k: v for k, v in context.carry.items() if k in keys} if kept else {}
        fitted, carry = adapt_in_turn(
            keys if kept else [f"{i}" for i in range(len(keys))],
            before,
            one or self._whole(patches, pair, self.prompts(context)),
        )
        found = fitted.patches.view_as(patches)
        parts = {"losses": fitted.losses, "patches": found}
        return found, parts, carry if kept else {}

    def prompts(self, context: ScoreContext[DomainText]) -> Tensor:
        """Return the unit prompt embeddings of every image's category, [B, T, E]."""
        text = [context.text[c.key].prompts for c in context.categories]
        return torch.stack([prompts for prompts in text if prompts is not None])

    def _whole(self, patches: Tensor, pair: Tensor, prompts: Tensor) -> AdaptOne:
        """Return what adapts one image that is seen as a whole."""

        def one(row: int, image: int, moments: dict[str, Tensor]) -> Fitted:
            rows = slice(row, row + 1)
            start = self.draw(image, prompts.shape[1], *patches.shape[1:])
            config = self.config.adapter
            return adapt(patches[rows], prompts[rows], pair[rows], config, start, moments)

        return one

    def _half(
        self,
        patches: Tensor,
        pair: Tensor,
        context: ScoreContext[DomainText],
        grid: tuple[int, int],
    ) -> AdaptOne:
        """Return what adapts the two squares of one image."""
        side = grid[0] * self.backbone.patch

        def one(row: int, image: int, moments: dict[str, Tensor]) -> Fitted:
            _, count, length, width = patches.shape
            start = self.draw(image, width, count * length, width)
            shift = round(context.shifts[row] * side)
            config = self.config.adapter
            return halves.adapt_halves(
                patches[row], pair[row], grid, side, shift, config, start, moments
            )

        return one

    def maps(self, patches: Tensor, pair: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the anomaly probability [B, h, w] of patches [B, L, E]."""
        logits = dense.similarity(patches, pair, grid, 1 / self.config.temperature)
        return pooled(dense.pair_probability(logits), self.config.pool)

    def joined_maps(
        self, patches: Tensor, pair: Tensor, grid: tuple[int, int], shifts: Sequence[float]
    ) -> Tensor:
        """Return the same of two squares [B, 2, L, E], joined, in the square of all maps."""
        side = grid[0] * self.backbone.patch
        return torch.stack(
            [
                halves.in_square(self.maps(two, labels, grid), round(shift * side), side)
                for two, labels, shift in zip(patches, pair, shifts, strict=True)
            ]
        )

    def probability(self, cls: Tensor, pair: Tensor) -> Tensor:
        """Return the anomaly probability [B] of class embeddings [B, E]."""
        cosine = torch.einsum("be,bce->bc", F.normalize(cls.float(), dim=-1), pair)
        return (cosine / self.config.temperature).softmax(-1)[:, 1]

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(align_corners=True, blur="gaussian" if sigma else "none", sigma=sigma)

    def run_info(
        self, text: Any = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Say which of the authors' scripts was run, where a configuration follows one."""
        if self.config.preset != "released" and not self.halves:
            return {}
        return {"script": "vis_test.py" if self.halves else "vl_test.py"}

    def explain(self, scored: Scored[DomainText], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the class token."""
        features, context = scored.features, scored.context
        seen = [features, *context.views] if self.halves else [features]
        units = [F.normalize(f[CLS].float(), dim=-1) for f in seen]
        cls = F.normalize(torch.stack(units).mean(0), dim=-1)
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
