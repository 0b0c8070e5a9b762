"""APRIL-GAN (Chen et al. 2023), zero-shot and few-shot track, in the order of the paper.

A linear layer per feature stage carries patch tokens of the ordinary path into the joint space;
they are compared with the label embeddings of a state prompt ensemble.  The image score comes
from the class token alone.  Few-shot: the distances of the patch tokens, as they are, to those of
normal images are added to the map, and its maximum to the image score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad.components.memory_bank import bank_of
from zsad.components.optimizers import adam
from zsad.components.prompt_ensemble import EnsembleFeatures, rank_phrases
from zsad.components.released_state import LayeredRelease
from zsad.components.stage_method import StageMethod
from zsad.components.templates import SCENE_TEMPLATES
from zsad.data.mixed_training import MosaicTraining
from zsad.method import TrainPhase, stretched
from zsad.methods.aprilgan import convert
from zsad.methods.aprilgan.config import Config
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

if TYPE_CHECKING:
    pass

CLS = Tap("cls")


class AprilGAN(
    MosaicTraining[Config, EnsembleFeatures],
    StageMethod[Config],
    LayeredRelease[Config, EnsembleFeatures],
):
    """Linear layers on patch tokens, compared with a state prompt ensemble."""

    name: ClassVar[str] = "aprilgan"
    from_release = staticmethod(convert.import_official)
    templates: ClassVar[Sequence[str]] = SCENE_TEMPLATES

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.taps = [Tap("tokens", layer) for layer in self.layers]
        self.fc = nn.ModuleList([nn.Linear(backbone.width, backbone.embed) for _ in self.taps])

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, *self.taps, variant=self.config.encoder)

    def word(self, category: Category) -> str:
        """Return the name of a category that the prompts say."""
        return category.said(self.config.names)

    # -------------------------------------------------------------------------- scoring
    def logits(self, features: ImageFeatures, pair: Tensor) -> list[Tensor]:
        """Return ``scale`` * cosine of every layer for label embeddings [B, 2, E]:
        K tensors [B, 2, h, w]."""
        patches = [fc(features.patches(tap).float()) for tap, fc in zip(self.taps, self.fc)]
        return self.stage_logits(patches, pair, features.grid)

    def score(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Scores:
        """Image: probability [B] from the class token; maps: pair logits per layer, and with
        ``shots`` the distances to the references, too."""
        pair = torch.stack([context.text[c.key].pair for c in context.categories])
        cls = F.normalize(features[CLS].float(), dim=-1)
        cosine = torch.einsum("be,bce->bc", cls, pair)
        image = (self.config.scale * cosine).softmax(-1)[:, 1]
        if not self.config.shots:
            return Scores(self.logits(features, pair), image)
        added = self.distances(features, context)
        return Scores(
            self.logits(features, pair), image, added=added, info={"zero_shot_score": image}
        )

    def distances(
        self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]
    ) -> list[Tensor]:
        """Return 1 - cosine of every patch and its nearest in the references, per layer:
        K tensors [B, h, w] in [0, 2]."""
        keys = [c.key for c in context.categories]
        found = [
            torch.empty(len(keys), *features.grid, device=features[t].device) for t in self.taps
        ]
        for key in sorted(set(keys)):
            rows = [i for i, other in enumerate(keys) if other == key]
            for tap, out in zip(self.taps, found):
                bank = bank_of(context.references[key], tap, patches=True)
                distance = 2 * bank.distance(features.patches(tap)[rows])
                out[rows] = distance.unflatten(1, features.grid)
        return found

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the class token's probability; with ``shots`` its mean with the map's maximum."""
        if not self.config.shots:
            return scores.image
        return (scores.image + built.final.amax(dim=(-2, -1))) / 2

    @property
    def stretches(self) -> bool:
        return bool(self.config.shots) and self.config.stretch

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Stretch the map's part of the few-shot score to [0, 1]."""
        language = info["zero_shot_score"]
        largest = 2 * scores - language
        return (language + stretched(largest, largest)) / 2

    def explain(self, scored: Scored[EnsembleFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the class token."""
        features, context = scored.features, scored.context
        cls = F.normalize(features[CLS].float(), dim=-1)
        note = f"averaged over {len(SCENE_TEMPLATES)} sentences"
        return [
            rank_phrases(unit, context.text[c.key], k, note)
            for unit, c in zip(cls, context.categories)
        ]

    # ------------------------------------------------------------------------- training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[EnsembleFeatures]
    ) -> dict[str, Tensor]:
        """Return ``focal`` and ``dice`` (of the anomalous map), summed over the layers."""
        pair = self.training_pair(context).to(batch.masks.device)
        terms = self.stage_losses(self.logits(features, pair), batch.masks)
        return {"total": terms["focal"] + terms["dice"], **terms}

    def phases(self) -> list[TrainPhase]:
        """One phase; its length depends on the auxiliary dataset."""
        train = self.config.train
        return [
            TrainPhase(
                name="linear",
                epochs=train.epochs_for(self.auxiliary),
                batch_size=train.batch_size,
                parameters=("fc.",),
                optimizer=adam(train.lr, train.betas),
            )
        ]
