"""ALFA (Zhu et al., ACM MM 2024), in the order of the paper.

Sec. 4.2 run-time prompt adaptation: prompts from templates and a language model, filtered for
every image.  Sec. 4.3 fine-grained aligner: windows of patches compared with the text carried
into their value space.  Eq. 10-12: scores.  Few-shot: distances to a memory of normal features.
No code was released; our readings are listed in the README and stored with every result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.memory_bank import association, tokens_of
from zsad.components.windows import window_grid
from zsad.errors import counted
from zsad.method import Method
from zsad.methods.alfa.config import Config
from zsad.methods.alfa.context import Kept, adapt
from zsad.methods.alfa.explain import explain_image
from zsad.methods.alfa.local import LocalScorer, anomaly_probability
from zsad.methods.alfa.prompts import LABELS, PromptSet, build_prompts
from zsad.types import (
    BackboneInfo,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    PromptView,
    ScoreContext,
    Scored,
    Scores,
    Tap,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

CLS = Tap("cls")
log = logging.getLogger(__name__)
FIGURES = ("nested_share", "kept_normal", "kept_abnormal")  # of every image, for the record


@dataclass(frozen=True)
class PromptFeatures:
    """Text side of one category, whose key is ``category``.

    ``embeddings`` [T, E] unit rows, normal prompts first; ``labels`` [T] 0 or 1; ``template`` [T]
    bool; ``descriptors`` [N, E] unit rows of the interpretability query, N may be 0.
    """

    category: str
    prompts: PromptSet
    texts: list[str]
    embeddings: Tensor
    labels: Tensor
    template: Tensor
    descriptors: Tensor


class Alfa(Method[Config, PromptFeatures]):
    """Adaptive prompts and text-to-window alignment, training-free."""

    name: ClassVar[str] = "alfa"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.local = LocalScorer(config, backbone.depth)
        self.one_class = config.prompts.labels == "normal_only"

    @property
    def memory_tap(self) -> Tap:
        """Patch tokens that the few-shot memory holds."""
        return tokens_of(self.config.memory_layer, self.backbone.depth)

    def feature_request(self) -> FeatureRequest:
        """Raises :class:`zsad.errors.RequestError` for a scale larger than the patch grid."""
        for k in self.config.scales:
            window_grid(self.backbone.grid(), k)
        if self.one_class:
            return FeatureRequest.of(CLS)
        shots = [self.memory_tap] if self.config.shots else []
        return FeatureRequest.of(CLS, *self.local.taps(), *shots)

    # --------------------------------------------------- Sec. 4.2: run-time adaptation
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, PromptFeatures]:
        """Build and encode the prompts of every category once."""
        prepared = {}
        for category in categories:
            prompts = build_prompts(category, self.config.template, self.config.llm)
            texts = [t for label in LABELS for t in prompts.texts(label)]
            units = F.normalize(text.encode_texts([*texts, *prompts.descriptors]).float(), dim=-1)
            by_label = [len(prompts.texts(label)) for label in LABELS]
            from_template = [
                i < len(prompts.template[label])
                for label, n in zip(LABELS, by_label)
                for i in range(n)
            ]
            labels = torch.tensor([0] * by_label[0] + [1] * by_label[1], device=units.device)
            prepared[category.key] = PromptFeatures(
                category.key,
                prompts,
                texts,
                units[: len(texts)],
                labels,
                torch.tensor(from_template, device=units.device),
                units[len(texts) :],
            )
        return prepared

    def score(self, features: ImageFeatures, context: ScoreContext[PromptFeatures]) -> Scores:
        """Image score [B] (Eq. 12) and map [B, h, w] (Eq. 11), probabilities in [0, 1]."""
        keys = [c.key for c in context.categories]
        image = torch.empty(len(keys), device=features[CLS].device)
        maps = torch.empty(len(keys), *features.grid, device=image.device)
        parts: dict[str, Any] = {"weight": [None] * len(keys), "context": [None] * len(keys)}
        info = {name: torch.empty_like(image) for name in FIGURES}
        for key in dict.fromkeys(keys):  # the prompts differ from category to category
            rows = [i for i, other in enumerate(keys) if other == key]
            part = features if len(rows) == len(keys) else features.select(rows)
            score, local, kept = self._score_category(key, part, context)
            at = slice(None) if len(rows) == len(keys) else rows
            image[at], maps[at] = score, local
            for i, w, c in zip(rows, kept.weight, kept.score):
                parts["weight"][i], parts["context"][i] = w, c
            for name, values in _figures(kept, context.text[key].labels).items():
                info[name][at] = values
        return Scores([maps], image, "values", parts, info=info)

    def _score_category(
        self, key: str, features: ImageFeatures, context: ScoreContext[PromptFeatures]
    ) -> tuple[Tensor, Tensor, Kept]:
        """Score images of one category: S [b], map [b, h, w], and which prompts were kept."""
        text: PromptFeatures = context.text[key]
        f = F.normalize(features[CLS].float(), dim=-1)
        kept = adapt(f @ text.embeddings.T, text.labels, text.template, self.config.context)
        embeddings, weight, labels = self.label_texts(text, kept.weight)
        if self.one_class:  # Table 2, first row: distance to normality, the same everywhere
            normal = F.normalize(embeddings[:, 0], dim=-1)
            score = (1 - (f * normal).sum(-1)) / 2
            field = score[:, None, None].expand(-1, *features.grid)
            return score, field, kept
        cosine = torch.einsum("be,bte->bt", f, embeddings)
        s_global = anomaly_probability(cosine, weight, labels, self.config.temperature)  # Eq. 10
        s_local = self.local.map(features, embeddings, weight, labels, s_global, context)
        if self.config.shots:  # distances to the references' patches and windows
            windows = {k: self.local.window_tap(k) for k in self.config.scales}
            memory = context.references[key]
            s_local = (s_local + association(features, memory, self.memory_tap, windows)) / 2
        peak = s_local.amax(dim=(-2, -1))
        both = {  # Eq. 12 and Table 6
            (True, True): (s_global + peak) / 2,
            (True, False): s_global,
            (False, True): peak,
        }
        use = self.config.score
        return both[use.use_global, use.use_local], s_local, kept

    def label_texts(self, text: PromptFeatures, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what images are compared with: embeddings [b, T', E], weights [b, T'], labels.

        ``mean``: F_TG [b, 2, E], per label the unit mean of the kept prompts.  ``sum_prompts``:
        all prompts with their weights.
        """
        if self.config.label_embedding == "sum_prompts" and not self.one_class:
            return text.embeddings.expand(len(weight), -1, -1), weight, text.labels
        sides = torch.stack([text.labels == 0, text.labels == 1]).to(weight)  # [2, T]
        pair = F.normalize((weight[:, None] * sides) @ text.embeddings, dim=-1)
        return pair, torch.ones_like(pair[..., 0]), torch.arange(2, device=weight.device)

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(blur="gaussian" if sigma else "none", sigma=sigma)

    # --------------------------------------------------------- Sec. 5.4: interpretability
    def explain(self, scored: Scored[PromptFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the kept abnormal prompts and the descriptors by cosine with the image."""
        features, scores, context = scored.features, scored.scores, scored.context
        if self.one_class:
            return [[] for _ in context.categories]
        windows = self.local.window_tap(max(self.config.scales))
        return [
            explain_image(
                features.select(slice(i, i + 1)),
                windows,
                context.text[category.key],
                scores.parts["weight"][i],
                scores.parts["context"][i],
                k,
            )
            for i, category in enumerate(context.categories)
        ]

    def prompt_views(self, scored: Scored[PromptFeatures]) -> list[PromptView]:
        """All prompts, and which of them the contextual filter kept (Fig. 4).

        ALFA makes no map of a single prompt: windows are compared with the mean of the kept ones.
        """
        images = F.normalize(scored.features[CLS].float(), dim=-1)
        found = []
        for image, category, weight in zip(
            images, scored.context.categories, scored.scores.parts["weight"]
        ):
            text = scored.context.text[category.key]
            abnormal = text.labels == 1
            found.append(PromptView(text.texts, abnormal, text.embeddings, image, weight > 0))
        return found

    # ------------------------------------------------------------------------ figures
    def run_info(
        self, text: PromptFeatures | None = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Our readings; prompts per label of the category; and, over its images, the share with
        nested intervals and the prompts kept."""
        info: dict[str, Any] = {"own_readings": self.config.own_readings()}
        if text is not None and means:
            info["prompts"] = {
                "normal": int((text.labels == 0).sum()),
                "abnormal": int((text.labels == 1).sum()),
                "generated": int((~text.template).sum()),
                "source": text.prompts.origin,
                "bank_digest": text.prompts.digest,
            }
            info["context"] = {"images": means["images"], **{k: means[k] for k in FIGURES}}
            log.info(
                "alfa, %s: intervals nest in %.0f %% of %s; %.1f normal and %.1f abnormal "
                "prompts kept on average",
                text.category,
                100 * means["nested_share"],
                counted(int(means["images"]), "image"),
                means["kept_normal"],
                means["kept_abnormal"],
            )
        return info


def _figures(kept: Kept, labels: Tensor) -> dict[str, Tensor]:
    """What the contextual filter did to each of b images: :data:`FIGURES`, [b] each."""
    found = kept.weight > 0  # [b, T]
    return {
        "nested_share": kept.emptied.any(1).float(),
        "kept_normal": (found & (labels == 0)).sum(1).float(),
        "kept_abnormal": (found & (labels == 1)).sum(1).float(),
    }
