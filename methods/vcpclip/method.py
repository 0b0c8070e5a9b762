"""VCP-CLIP (Qu et al., ECCV 2024), in the order of the paper.

Two prompts, "a photo of a good" and "a photo of a damaged", go on with learned vectors that the
image shifts, in place of a class name (Pre-VCP).  Their text pair is compared with the patches of
four layers (plain maps), and once more after it has looked at these patches (Post-VCP; refined
maps).  The image score is that of the largest pixels: the class token is compared with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from zsad import maps as dense
from zsad.components import losses as zl
from zsad.components.prompt_learning import unit
from zsad.components.released_state import LayeredRelease
from zsad.data.mixed_training import InspectedTraining
from zsad.method import TrainPhase, chosen_blocks, stretched
from zsad.methods.vcpclip import convert
from zsad.methods.vcpclip.config import Config
from zsad.methods.vcpclip.modules import TEMPERATURE, DeepTokens, PostVCP, PreVCP
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
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
SHARE = 2000 / 518**2  # of the pixels that make the image score, in the released code
NORM_EPS = 1e-6
TEMPERATURES = ("temperature_plain", "temperature_refined")


@dataclass(frozen=True)
class PairLogits:
    """Pair logits [B, 2, h, w] of every layer: of the ``plain`` text, of the ``refined`` one."""

    plain: list[Tensor]
    refined: list[Tensor]


class VCPCLIP(InspectedTraining[Config, None], LayeredRelease[Config, None]):
    """Visual context in the prompts, and text that looks at the patches."""

    name: ClassVar[str] = "vcpclip"
    from_release = staticmethod(convert.import_official)

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        embed, width, text = backbone.embed, backbone.width, backbone.text_width
        self.taps = [
            Tap("tokens", layer) for layer in chosen_blocks(self.name, config.layers, backbone)
        ]
        self.pre = PreVCP(config.class_tokens, embed, text, config.use_image)
        self.deep = DeepTokens(backbone.text_depth, config.deep_tokens, text)
        self.dropout = nn.Dropout(config.train.dropout)
        self.norm = nn.LayerNorm(text, eps=NORM_EPS)
        self.fc = nn.ModuleList([nn.Linear(width, embed) for _ in self.taps])
        self.post = PostVCP(embed, width, config.heads, config.temper)
        self.temperature_plain = nn.Parameter(torch.tensor(TEMPERATURE))
        self.temperature_refined = nn.Parameter(torch.tensor(TEMPERATURE))

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, *self.taps, variant=self.config.encoder)

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, None]:
        """Nothing: no prompt names a category, and all of them follow the image."""
        return {c.key: None for c in categories}

    # ------------------------------------------------------------------------- Pre-VCP
    def text_pair(self, image: Tensor, text: TextEncoder) -> Tensor:
        """Encode the two prompts of each image vector [B, E] (raw): unit text pairs [B, 2, E].

        A prompt is [start][deep tokens][words][class vectors][end].  The deep tokens are inserted
        after positions were added: they have none, and all others keep their own.
        """
        words = self.config.words
        tokens = text.tokenize([words.normal, words.anomalous])
        starts, ends = text.embed_tokens(tokens), tokens.ends
        classes = self.pre(image)  # [B, r, W]
        deep = self.deep()  # [depth, n, W]
        if self.training:
            return self._pair_in_training(starts, ends, classes, deep, text)
        pairs = []
        for start, end in zip(starts, ends):
            prefix = torch.cat([start[:1], deep[0], start[1:end]])
            suffix = torch.cat([classes, start[end].expand(len(classes), 1, -1)], 1)
            length = len(prefix) + suffix.shape[1]
            shift = self._unplaced(length, text)
            pairs.append(
                text.encode_prefixed(
                    (prefix + shift[: len(prefix)])[None],
                    (suffix + shift[len(prefix) :])[:, None],
                    [length - 1],
                    list(deep[1:]),
                    before_final=self.norm,
                )
            )
        return unit(torch.cat(pairs, 1))

    def _pair_in_training(
        self,
        starts: Tensor,
        ends: Sequence[int],
        classes: Tensor,
        deep: Tensor,
        text: TextEncoder,
    ) -> Tensor:
        """The same, with a draw of dropout for every label, image and layer."""
        count, labels = len(classes), len(starts)
        dropped = self.dropout(deep[:, None, None].expand(-1, count, labels, -1, -1))
        pairs = []
        for label, (start, end) in enumerate(zip(starts, ends)):
            own = dropped[:, :, label]  # [depth, B, n, W]
            fixed = start.expand(count, -1, -1)
            prompt = torch.cat(
                [fixed[:, :1], own[0], fixed[:, 1:end], classes, fixed[:, end : end + 1]], 1
            )
            length = prompt.shape[1]
            placed = prompt + self._unplaced(length, text)
            pairs.append(
                text.encode_embeddings(
                    placed[:, None],
                    [length - 1],
                    list(own[1:, :, None]),
                    before_final=self.norm,
                )
            )
        return unit(torch.cat(pairs, 1))

    def _unplaced(self, length: int, text: TextEncoder) -> Tensor:
        """Return what makes the positions that the encoder adds to ``length`` tokens those that
        they have without the inserted ones: [length, W]."""
        table = text.positions(0, length)
        count = self.config.deep_tokens
        meant = torch.cat([table[:1], torch.zeros_like(table[:count]), table[1 : length - count]])
        return meant - table

    # ------------------------------------------------------------------ Post-VCP, maps, score
    def logits(self, features: ImageFeatures, text: TextEncoder) -> PairLogits:
        """Return the pair logits of every layer."""
        pair = self.text_pair(features[CLS].float(), text)
        plain, refined = self.temperature_plain.exp(), self.temperature_refined.exp()
        found = PairLogits([], [])
        for tap, fc in zip(self.taps, self.fc):
            patches = features.patches(tap).float()
            found.plain.append(dense.similarity(fc(patches), pair, features.grid) * plain)
            seen = self.post(pair, patches)
            found.refined.append(dense.similarity(patches, seen, features.grid) * refined)
        return found

    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        """Maps: pair logits of every layer, plain ones first; the image score follows from them."""
        found = self.logits(features, context.text_encoder)
        nothing = torch.zeros(features.batch_size, device=found.plain[0].device)
        return Scores([*found.plain, *found.refined], nothing)

    def map_spec(self) -> MapSpec:
        """Enlarge the logits with aligned corners, softmax; ``alpha`` weighs the refined maps."""
        sigma, count, alpha = self.config.post.sigma, len(self.taps), self.config.alpha
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            weights=((1 - alpha) / count,) * count + (alpha / count,) * count,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
            keep="stages",
        )

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the mean of the largest pixels of the plain and of the refined mean map, joined;
        neither is smoothed."""
        count = len(self.taps)
        found = [
            _largest(dense.joined(stages, "mean"), self.config.score.pixels)
            for stages in (built.stages[:count], built.stages[count:])
        ]
        return dense.joined(found, self.config.score.join)

    @property
    def stretches(self) -> bool:
        return self.config.stretch

    @property
    def stretches_maps(self) -> bool:
        return self.config.stretch

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Stretch the scores of a category to [0, 1]."""
        return stretched(scores, scores)

    # ------------------------------------------------------------------------ training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[None]
    ) -> dict[str, Tensor]:
        """Return focal + Dice (of the anomalous map) of all enlarged maps, ``plain`` and
        ``refined``; the same as ``focal`` and ``dice``, and ``total``."""
        found = self.logits(features, context.text_encoder)
        masks = batch.masks[:, 0]
        terms = {name: masks.new_zeros(()) for name in ("plain", "refined", "focal", "dice")}
        for kind, stages in (("plain", found.plain), ("refined", found.refined)):
            for stage in stages:
                enlarged = dense.upsample(dense.pair_difference(stage), masks.shape[-1], True)
                probability = enlarged.sigmoid()
                focal, dice = zl.focal(probability, masks), zl.dice(probability, masks)
                terms[kind] = terms[kind] + focal + dice
                terms["focal"], terms["dice"] = terms["focal"] + focal, terms["dice"] + dice
        return {"total": terms["plain"] + terms["refined"], **terms}

    def phases(self) -> list[TrainPhase]:
        """One phase; its rate depends on the auxiliary dataset."""
        train = self.config.train

        def optimizer(named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
            hot = [p for n, p in named.items() if n in TEMPERATURES]
            rest = [p for n, p in named.items() if n not in TEMPERATURES]
            rate = train.rate_for(self.auxiliary)
            groups: list[dict[str, Any]] = [
                {"params": rest, "lr": rate},
                {"params": hot, "lr": train.temperature_lr},
            ]
            return torch.optim.Adam(groups, lr=rate, betas=train.betas)

        return [
            TrainPhase(
                name="prompts",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("pre.", "deep.", "norm.", "fc.", "post.", "temperature_"),
                optimizer=optimizer,
            )
        ]


def _largest(planes: Tensor, pixels: int) -> Tensor:
    """Return the mean of the largest ``pixels`` (0: the released share) of planes [B, H, W]."""
    flat = planes.flatten(1)
    count = pixels or max(1, round(SHARE * flat.shape[1]))
    return flat.topk(min(count, flat.shape[1])).values.mean(1)
