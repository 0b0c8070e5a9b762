"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023).

Top to bottom in the order of the paper: language-guided classification (Sec. 4.1), window-based
segmentation (4.2), reference association with k normal images (4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components.memory_bank import association, tokens_of
from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble, fill, rank_phrases
from zsad.components.templates import STATES, TEMPLATES
from zsad.components.windows import join, spread, window_grid, window_region
from zsad.method import Method
from zsad.methods.winclip.config import Config
from zsad.methods.winclip.prompts import REPRODUCTION
from zsad.on_device import told
from zsad.types import (
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


class WinClip(Method[Config, EnsembleFeatures]):
    """Windows of patches compared with a compositional prompt ensemble."""

    name: ClassVar[str] = "winclip"

    @property
    def memory_tap(self) -> Tap:
        """Patch tokens that the few-shot memory holds."""
        return tokens_of(self.config.memory_layer, self.backbone.depth)

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates that every state phrase stands in."""
        return TEMPLATES if self.config.templates == "paper" else REPRODUCTION

    def feature_request(self) -> FeatureRequest:
        """Raises :class:`zsad.errors.RequestError` for a scale larger than the patch grid."""
        for k in self.config.scales:
            window_grid(self.backbone.grid(), k)
        taps = [CLS, *(Tap("window", k) for k in self.config.scales)]
        return FeatureRequest.of(*taps, *([self.memory_tap] if self.config.shots else []))

    # ------------------------------------------------------------- Sec. 4.1: language
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, EnsembleFeatures]:
        """Encode all state x template prompts; a label is the unit mean of its (unit) prompts."""
        return {
            c.key: encode_ensemble(
                fill(STATES, c.said(self.config.names)),
                text,
                self.templates,
                unit_first=self.config.unit_first,
            )
            for c in categories
        }

    def probability(self, embeddings: Tensor, text: Tensor) -> Tensor:
        """Eq. 1: softmax over the labels.  [B, M, E], [B, 2, E] -> anomaly probability [B, M]."""
        cosine = F.normalize(embeddings.float(), dim=-1) @ text.mT  # [B, M, 2]
        return ((cosine[..., 1] - cosine[..., 0]) / self.config.temperature).sigmoid()

    # -------------------------------------------------------------- Sec. 4.2: windows
    def score(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Scores:
        """Anomaly probabilities: image [B], map [B, h, w]; with references both are mixed.

        With ``fewshot_map: sum`` the map lies in [0, 2].
        """
        text = torch.stack([context.text[c.key].pair for c in context.categories])
        grid, floor = features.grid, self.config.floor
        image = self.probability(features[CLS][:, None], text)[:, 0]
        scales = [
            spread(self.probability(features[Tap("window", k)], text), grid, k, eps=floor)
            for k in self.config.scales
        ]
        if self.config.include_image_scale:
            scales.append(image[:, None, None].expand(-1, *grid))
        zero_shot = join(scales, eps=floor)
        parts = {"language_image": image, "language_map": zero_shot}
        if not self.config.shots:
            return Scores([zero_shot], image, "values", parts)
        distance = self.association(features, context)
        parts["association_map"] = distance
        image = (image + distance.amax(dim=(-2, -1))) / 2
        both = zero_shot + distance
        joined = both / 2 if self.config.fewshot_map == "mean" else both
        return Scores([joined], image, "values", parts)

    # ------------------------------------------------------------ Sec. 4.3: references
    def association(
        self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]
    ) -> Tensor:
        """Eq. 4 and its mean over patches and window scales of the distance to the references.

        [B, h, w] in [0, 1]: ½(1 - highest cosine).
        """
        keys = [c.key for c in context.categories]
        out = torch.empty(len(keys), *features.grid, device=features[CLS].device)
        for key in sorted(set(keys)):
            rows = [i for i, other in enumerate(keys) if other == key]
            query = features if len(rows) == len(keys) else features.select(rows)
            memory = context.references[key]
            windows = {k: Tap("window", k) for k in self.config.scales}
            out[rows] = association(query, memory, self.memory_tap, windows, self.config.floor)
        return out

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(blur="gaussian" if sigma else "none", sigma=sigma)

    # ------------------------------------------------------------------- explanation
    def explain(self, scored: Scored[EnsembleFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the image; show each one's best window."""
        features, context = scored.features, scored.context
        cls = F.normalize(features[CLS].float(), dim=-1)
        return [
            self._explain_one(
                features.select(slice(i, i + 1)), cls[i], context.text[category.key], k
            )
            for i, category in enumerate(context.categories)
        ]

    def _explain_one(
        self, features: ImageFeatures, cls: Tensor, text: EnsembleFeatures, k: int
    ) -> list[Explanation]:
        note = f"averaged over {len(self.templates)} sentences"
        size = max(self.config.scales, default=0)
        if not size:
            return rank_phrases(cls, text, k, note)
        window = F.normalize(features[Tap("window", size)][0].float(), dim=-1)
        peaks = (window @ text.embeddings.T).argmax(0)  # [T]
        cosines, places = told(text.embeddings @ cls, peaks)
        found = rank_phrases(cosines, text, k, f"{note}; the region is the window most like it")
        for reason in found:
            place = places[text.phrases.index(reason.text)]
            reason.region = window_region(place, features.grid, size)
        return found
