"""AnomalyCLIP (Zhou et al., ICLR 2024): two object-agnostic learned prompts.

One normal and one abnormal prompt, ``[V_1..V_12][object]`` and ``[W_1..W_12][damaged][object]``,
with learned tokens in the first text layers.  Patch features come from the v-v path; nothing
depends on the category, so the text pair is encoded once per run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zsad import maps
from zsad.components import losses
from zsad.components.optimizers import adam
from zsad.components.prompt_learning import DeepPrompts, learned_tokens, prompt_text, unit
from zsad.errors import RequestError
from zsad.method import ImportedCheckpoint, Method, TrainPhase
from zsad.methods.anomalyclip import convert
from zsad.methods.anomalyclip.config import Config
from zsad.types import (
    BackboneInfo,
    Category,
    EncoderVariant,
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


class PromptPair(torch.nn.Module):
    """The learned tokens of a further member of an ensemble."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.normal_tokens = learned_tokens(config.n_ctx, width)
        self.abnormal_tokens = learned_tokens(config.n_ctx, width)
        self.deep_prompts = DeepPrompts(
            config.deep.depth, config.deep.tokens, width, config.deep_half
        )


class AnomalyCLIP(Method[Config, Tensor]):
    """Object-agnostic prompt pair against v-v patch tokens and the class token."""

    name = "anomalyclip"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        width = backbone.text_width
        self.normal_tokens = learned_tokens(config.n_ctx, width)
        self.abnormal_tokens = learned_tokens(config.n_ctx, width)
        self.deep_prompts = DeepPrompts(
            config.deep.depth, config.deep.tokens, width, config.deep_half
        )
        self.others = torch.nn.ModuleList(
            PromptPair(config, width) for _ in range(config.ensemble - 1)
        )
        start = backbone.vv_start(config.vv_blocks)
        self.patch_taps = [
            Tap("vv_proj", layer, start) for layer in mapped_layers(config, backbone, start)
        ]
        self.image_tap = Tap(config.image_token)

    # ---------------------------------------------------------------- features and text
    def feature_request(self) -> FeatureRequest:
        variant = EncoderVariant(pos_interp=self.config.pos_interp, decoding=self.config.decoding)
        return FeatureRequest.of(self.image_tap, *self.patch_taps, variant=variant)

    def text_pair(self, text: TextEncoder) -> Tensor:
        """Encode the two prompts: unit text features [2, E], of an ensemble those of the mean."""
        pairs = self.text_pairs(text)
        return pairs[0] if len(pairs) == 1 else unit(torch.stack(pairs).mean(dim=0))

    def text_pairs(self, text: TextEncoder) -> list[Tensor]:
        """Encode the prompts of every member: unit text features [2, E] each."""
        members: list[AnomalyCLIP | PromptPair] = [self]
        members += cast("list[PromptPair]", list(self.others))
        return [self._encoded(member, text) for member in members]

    def _encoded(self, member: AnomalyCLIP | PromptPair, text: TextEncoder) -> Tensor:
        config = self.config
        tokens = text.tokenize(
            [
                prompt_text(config.n_ctx, config.class_word),
                prompt_text(config.n_ctx, config.state_word, config.class_word),
            ]
        )
        embedded = text.embed_tokens(tokens)  # [2, S, W]
        context = torch.stack([member.normal_tokens, member.abnormal_tokens])
        prompts = torch.cat([embedded[:, :1], context, embedded[:, 1 + config.n_ctx :]], dim=1)
        return unit(text.encode_embeddings(prompts, tokens.ends, member.deep_prompts()))

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, Tensor]:
        with torch.no_grad():
            pair = self.text_pair(text)
        return {category.key: pair for category in categories}

    # ------------------------------------------------------------------------- scoring
    def patch_logits(self, features: ImageFeatures, pair: Tensor) -> list[Tensor]:
        """Return cosines / temperature of every mapped layer: K tensors [B, 2, h, w]."""
        scale = 1 / self.config.temperature
        return [
            maps.similarity(features.patches(tap).float(), pair, features.grid, scale)
            for tap in self.patch_taps
        ]

    def image_logits(self, features: ImageFeatures, pair: Tensor) -> Tensor:
        """Return cosines / temperature of the class token: [B, 2]."""
        return unit(features[self.image_tap]) @ pair.T / self.config.temperature

    def score(self, features: ImageFeatures, context: ScoreContext[Tensor]) -> Scores:
        pair = next(iter(context.text.values()))  # the same for every category
        image = self.image_logits(features, pair).softmax(dim=1)[:, 1]
        return Scores(self.patch_logits(features, pair), image)

    def map_spec(self) -> MapSpec:
        """Probabilities per layer, enlarged, then their mean (or sum), then smoothed."""
        sigma = self.config.post.sigma
        return MapSpec(
            order="softmax_then_upsample",
            align_corners=False,
            fuse=self.config.fuse,
            blur="gaussian" if sigma > 0 else "none",
            sigma=sigma,
        )

    # ------------------------------------------------------------------------ training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss terms of one batch.

        ``image_loss``: cross-entropy of the image logits.  ``loss``: pixel terms (focal, Dice of
        the abnormal and of the normal map) summed over layers, times ``loss.pixel_weight``.
        ``focal``, ``dice_abnormal``, ``dice_normal``: the same terms unweighted, for the log.
        Members of an ensemble have sums, and so each learns as if it were alone.
        """
        members = [
            self._losses(features, batch, pair) for pair in self.text_pairs(context.text_encoder)
        ]
        return {name: torch.stack([m[name] for m in members]).sum(dim=0) for name in members[0]}

    def _losses(
        self, features: ImageFeatures, batch: TrainBatch, pair: Tensor
    ) -> dict[str, Tensor]:
        masks = batch.masks[:, 0]
        terms = {"focal": masks.new_zeros(()), "dice_abnormal": masks.new_zeros(())}
        terms["dice_normal"] = masks.new_zeros(())
        for logits in self.patch_logits(features, pair):
            probability = maps.upsample(logits.softmax(dim=1), masks.shape[-1], False)
            for name, value in losses.pixel_terms(probability, masks).items():
                terms[name] = terms[name] + value
        local = self.config.loss.pixel_weight * sum(terms.values(), masks.new_zeros(()))
        image = cross_entropy(self.image_logits(features, pair), batch.labels.long())
        return {"total": local + image, "loss": local, "image_loss": image, **terms}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="prompts",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("normal_tokens", "abnormal_tokens", "deep_prompts", "others"),
                optimizer=adam(train.lr, train.betas),
            )
        ]

    # --------------------------------------------------------------- official weights
    @classmethod
    def import_official(
        cls, state: object, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        return convert.import_official(state, backbone)


def mapped_layers(config: Config, backbone: BackboneInfo, start: int) -> tuple[int, ...]:
    """Return the 1-based layers that are mapped.

    Raises :class:`RequestError` for a layer outside of the v-v path.
    """
    if config.layers == "last":
        return (backbone.depth,)
    in_path = tuple(layer for layer in backbone.stages if layer >= start)
    layers = in_path if config.layers == "all" else tuple(config.layers)
    wrong = [n for n in layers if not start <= int(n) <= backbone.depth]
    if wrong or not layers:
        raise RequestError(
            f"anomalyclip.layers={list(layers)} does not fit backbone '{backbone.name}'; "
            f"the v-v path covers layers {start}..{backbone.depth}"
        )
    return tuple(int(n) for n in layers)
