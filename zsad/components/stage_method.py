"""Base of methods that compare several stages (APRIL-GAN, MVFA-AD).

Patch tokens of several stages are carried into the joint space and compared with a state prompt
ensemble; each stage's enlarged map is trained by focal and Dice losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import Tensor

from zsad import maps as dense
from zsad.components import losses as zl
from zsad.components.prompt_ensemble import EnsembleFeatures, encode_ensemble, fill
from zsad.components.schemas import StageConfig
from zsad.components.templates import BROKEN_STATES, NORMAL_STATES
from zsad.method import Method, chosen_blocks
from zsad.types import BackboneInfo, Category, MapSpec, ScoreContext

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

StageConfigT = TypeVar("StageConfigT", bound=StageConfig)


class StageMethod(Method[StageConfigT, EnsembleFeatures]):
    """Compares the stages ``config.layers`` with 7 normal and 5 anomalous states in
    ``templates``."""

    templates: ClassVar[Sequence[str]] = ()

    def __init__(self, config: StageConfigT, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.layers = chosen_blocks(self.name, config.layers, backbone)
        self._pairs: dict[str, Tensor] = {}  # label embeddings of the training categories

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, EnsembleFeatures]:
        """Encode every state in every template, per category."""
        return {c.key: self.encode(c, text) for c in categories}

    def word(self, category: Category) -> str:
        """Return the name of a category that the prompts say."""
        return category.class_name

    def encode(self, category: Category, text: TextEncoder) -> EnsembleFeatures:
        """Encode the ensemble of one category."""
        phrases = fill((NORMAL_STATES, BROKEN_STATES), self.word(category))
        return encode_ensemble(phrases, text, self.templates)

    # -------------------------------------------------------------------------- scoring
    def stage_logits(
        self, patches: Sequence[Tensor], pair: Tensor, grid: tuple[int, int]
    ) -> list[Tensor]:
        """Return ``scale`` * cosine of every stage's patches [B, L, E] with label embeddings
        [B, 2, E]: K tensors [B, 2, h, w]."""
        return [dense.similarity(p, pair, grid, self.config.scale) for p in patches]

    def map_spec(self) -> MapSpec:
        """Enlarge the logits with aligned corners, softmax, then join the stages."""
        sigma = self.config.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            fuse=self.config.fuse,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
        )

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Encode the prompts of the training categories once."""
        with torch.no_grad():
            self._pairs = {c.key: self.encode(c, text).pair for c in categories}

    def training_pair(self, context: ScoreContext[EnsembleFeatures]) -> Tensor:
        """Return the label embeddings [B, 2, E] of the images of a training batch."""
        with torch.no_grad():
            for category in context.categories:
                if category.key not in self._pairs:
                    self._pairs[category.key] = self.encode(category, context.text_encoder).pair
        return torch.stack([self._pairs[c.key] for c in context.categories])

    def stage_losses(self, logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
        """Return ``focal`` and ``dice`` (of the anomalous map), summed over the stages: scalars.

        ``logits``: [B, 2, h, w] of every stage; ``masks`` [B, 1, H, W].
        With two labels the softmax is a sigmoid of the difference, and enlarging is linear: one
        channel is enlarged, not two.
        """
        focal, dice = masks.new_zeros(()), masks.new_zeros(())
        for stage in logits:
            enlarged = dense.upsample(dense.pair_difference(stage), masks.shape[-1], True)
            probability = enlarged.sigmoid()
            focal = focal + zl.focal(probability, masks)
            dice = dice + zl.dice(probability, masks)
        return {"focal": focal, "dice": dice}
