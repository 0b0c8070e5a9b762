"""APRIL-GAN (Chen et al. 2023), zero-shot track, in the order of the paper.

A linear layer per feature stage carries patch tokens of the ordinary path into the joint space;
they are compared with the label embeddings of a state prompt ensemble.  The image score comes
from the class token alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad import losses as zl
from zsad import maps as dense
from zsad.errors import RequestError
from zsad.method import ImportedCheckpoint, Method, TrainPhase
from zsad.methods.aprilgan import convert
from zsad.methods.aprilgan.config import Config
from zsad.methods.aprilgan.prompts import (
    ANOMALOUS_STATES,
    NORMAL_STATES,
    TEMPLATES,
    encode_states,
    rank_states,
)
from zsad.methods.winclip.method import StateFeatures
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    ScoreContext,
    Scores,
    Tap,
    TrainBatch,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

CLS = Tap("cls")


class AprilGAN(Method):
    """Linear layers on patch tokens, compared with a state prompt ensemble."""

    name: ClassVar[str] = "aprilgan"
    config: Config

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.taps = [Tap("tokens", layer) for layer in chosen_layers(config, backbone)]
        self.fc = nn.ModuleList([nn.Linear(backbone.width, backbone.embed) for _ in self.taps])
        self._pairs: dict[str, Tensor] = {}  # label embeddings of the training categories

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, *self.taps)

    # ------------------------------------------------------------- state prompt ensemble
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, StateFeatures]:
        """Encode 7 normal and 5 anomalous states in 35 templates per category."""
        states = (NORMAL_STATES, ANOMALOUS_STATES)
        return {c.key: encode_states(c.class_name, states, TEMPLATES, text) for c in categories}

    # -------------------------------------------------------------------------- scoring
    def logits(self, features: ImageFeatures, pair: Tensor) -> list[Tensor]:
        """Return ``scale`` * cosine of every layer for label embeddings [B, 2, E]:
        K tensors [B, 2, h, w]."""
        return [
            dense.similarity(
                layer(features.patches(tap).float()), pair, features.grid, self.config.scale
            )
            for tap, layer in zip(self.taps, self.fc)
        ]

    def score(self, features: ImageFeatures, context: ScoreContext) -> Scores:
        """Image: probability [B] from the class token; maps: pair logits per layer."""
        pair = torch.stack([context.text[c.key].pair for c in context.categories])
        cls = F.normalize(features[CLS].float(), dim=-1)
        cosine = torch.einsum("be,bce->bc", cls, pair)
        image = (self.config.scale * cosine).softmax(-1)[:, 1]
        return Scores(self.logits(features, pair), image)

    def map_spec(self) -> MapSpec:
        """Enlarge the logits with aligned corners, softmax, then join the layers."""
        sigma = self.config.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            fuse=self.config.fuse,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
        )

    def explain(
        self,
        features: ImageFeatures,
        scores: Scores,
        maps: BuiltMaps,
        context: ScoreContext,
        k: int = 5,
    ) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the class token."""
        cls = F.normalize(features[CLS].float(), dim=-1)
        note = f"mean over {len(TEMPLATES)} templates"
        return [
            rank_states(unit, context.text[c.key], k, note)
            for unit, c in zip(cls, context.categories)
        ]

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Encode the prompts of the training categories once."""
        with torch.no_grad():
            prepared = self.prepare_text(categories, text)
        self._pairs = {key: found.pair for key, found in prepared.items()}

    def training_pair(self, context: ScoreContext) -> Tensor:
        """Return the label embeddings [B, 2, E] of the images of a training batch."""
        new = {c.key: c for c in context.categories if c.key not in self._pairs}
        if new:
            with torch.no_grad():
                prepared = self.prepare_text(list(new.values()), context.text_encoder)
            self._pairs.update({key: found.pair for key, found in prepared.items()})
        return torch.stack([self._pairs[c.key] for c in context.categories])

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext
    ) -> dict[str, Tensor]:
        """Return ``focal`` and ``dice`` (of the anomalous map), summed over the layers."""
        pair = self.training_pair(context).to(batch.masks.device)
        focal, dice = batch.masks.new_zeros(()), batch.masks.new_zeros(())
        for logits in self.logits(features, pair):
            size = batch.masks.shape[-1]
            probability = dense.upsample(logits, size, align_corners=True).softmax(1)
            focal = focal + zl.focal(probability, batch.masks)
            dice = dice + zl.dice(probability[:, 1], batch.masks)
        return {"total": focal + dice, "focal": focal, "dice": dice}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="linear",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("fc.",),
                optimizer=lambda named: torch.optim.Adam(
                    list(named.values()), lr=train.lr, betas=train.betas
                ),
            )
        ]

    @classmethod
    def import_official(
        cls, state: Any, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate a released file; see :mod:`zsad.methods.aprilgan.convert`."""
        return convert.import_official(state, len(chosen_layers(config, backbone)), backbone)


def chosen_layers(config: Config, backbone: BackboneInfo) -> tuple[int, ...]:
    """Return the 1-based blocks whose tokens are read.

    Raises :class:`RequestError` for a block that the backbone does not have.
    """
    layers = backbone.stages if config.layers == "stages" else tuple(config.layers)
    if not layers or any(not 1 <= int(n) <= backbone.depth for n in layers):
        raise RequestError(
            f"aprilgan.layers={list(layers)} does not fit backbone '{backbone.name}'; "
            f"it has blocks 1..{backbone.depth}"
        )
    return tuple(int(n) for n in layers)
