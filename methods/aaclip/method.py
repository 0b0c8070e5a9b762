"""AA-CLIP (Ma et al., CVPR 2025), zero-shot, in the order of its released code.

Residual adapters change the first blocks of both towers.  First the text's are trained, until the
normal and the anomalous anchor lie apart; then the anchors stand still and the image's are trained,
so that patches of four stages, and their mean, align with them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.components import losses
from zsad.components.optimizers import adam
from zsad.components.prompt_ensemble import EnsembleFeatures, fill, in_templates, rank_phrases
from zsad.components.prompt_learning import unit
from zsad.components.windows import window_region
from zsad.data import augment
from zsad.errors import RequestError
from zsad.method import ImportedCheckpoint, Method, TrainPhase, chosen_blocks
from zsad.methods.aaclip import convert, prompts
from zsad.methods.aaclip.augmentation import changes
from zsad.methods.aaclip.config import Config
from zsad.methods.aaclip.modules import ImageAdapter, mixed, text_adapter
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    Sample,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder

CLS = Tap("cls")
ENTRY = Tap("tokens", 0)  # where the adapted stream leaves the common one: before the first block
SIGMAS = {"industrial": 1.0, "medical": 1.5}  # patches


@dataclass
class Stream:
    """What the adapted visual tower holds: unit ``patches`` [B, L, E] of every stage and
    ``image`` [B, E], the mean of unit patches, which is shorter than 1."""

    patches: list[Tensor]
    image: Tensor


class AACLIP(Method[Config, EnsembleFeatures]):
    """Anomaly-aware CLIP: adapters in two towers, trained one after the other."""

    name: ClassVar[str] = "aaclip"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.layers = chosen_blocks(self.name, config.layers, backbone)
        texts, images = depths(config, backbone)
        self.text_adapter = text_adapter(texts, backbone.text_width, backbone.embed)
        self.image_adapter = ImageAdapter(
            images, len(self.layers), backbone.width, backbone.embed, config.relu
        )
        self.v_start = backbone.vv_start(19)  # first block with attention by values, stage 1
        self._anchors: dict[str, Tensor] = {}  # of the training categories, stage 2

    # ---------------------------------------------------------------- features and text
    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(ENTRY, variant=self.config.encoder)

    def training_request(self) -> FeatureRequest:
        """Stage 1 reads the ordinary tower, stage 2 what inference reads."""
        early = [Tap("tokens", n) for n in self.first_stage_layers if n < self.v_start]
        taps = (ENTRY, CLS, Tap("tokens", self.v_start - 1), *early)
        return FeatureRequest.of(*taps, variant=self.config.encoder)

    @property
    def first_stage_layers(self) -> tuple[int, ...]:
        """The layers whose losses train the text adapters."""
        return self.layers if self.config.stage1.layers == "all" else self.layers[-1:]

    def sentences(self, category: Category, text: TextEncoder) -> Tensor:
        """Return the unit features [16, E] of a category's sentences, normal ones first."""
        normal, anomalous = fill(prompts.STATES, prompts.word(category, self.config.names))
        tokens = text.tokenize(in_templates([*normal, *anomalous], prompts.TEMPLATES))
        *adapters, projection = self.text_adapter

        def mix(layer: int, x: Tensor) -> Tensor:
            if layer > len(adapters):
                return x
            return mixed(adapters[layer - 1], x, self.config.text_weight)

        def project(x: Tensor) -> Tensor:
            out: Tensor = projection(x.float())
            return out

        words = text.embed_tokens(tokens)
        return unit(text.encode_embeddings(words, tokens.ends, adapters=mix, projection=project))

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, EnsembleFeatures]:
        found = {}
        with torch.no_grad():
            for category in categories:
                normal, anomalous = fill(prompts.STATES, prompts.word(category, self.config.names))
                encoded = self.sentences(category, text)
                means = encoded.unflatten(0, (-1, len(prompts.TEMPLATES))).mean(1)
                found[category.key] = EnsembleFeatures(
                    pair_of(encoded), [*normal, *anomalous], unit(means), len(normal)
                )
        return found

    # ------------------------------------------------------------- the adapted stream
    def adapted(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Stream:
        """Run all blocks with the adapters in the first ones.

        After block l: x <- (1 - share) x + share |x| A(x) / |A(x)|, for every token.
        """
        encoder, own = context.image_encoder, self.image_adapter
        kept: dict[int, Tensor] = {}

        def mix(layer: int, x: Tensor) -> Tensor:
            if layer <= len(own.layer_adapters):
                x = mixed(own.layer_adapters[layer - 1], x, self.config.image_weight)
            if layer in self.layers:
                kept[layer] = encoder.post_norm(x[:, 1:]).float()
            return x

        encoder.resume(features[ENTRY], 1, mix, last_block=self.layers[-1], checkpointed=True)
        patches = [unit(project(kept[n])) for n, project in zip(self.layers, own.seg_proj)]
        return Stream(patches, unit(own.det_proj(kept[self.layers[-1]])).mean(1))

    def stage_logits(
        self, patches: Sequence[Tensor], pair: Tensor, grid: tuple[int, int]
    ) -> list[Tensor]:
        """Return ``scale`` * <patch, anchor> of every stage: K tensors [B, 2, h, w]."""
        scale = self.config.scale
        return [dense.similarity(p, pair, grid, scale, normalize=False) for p in patches]

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Scores:
        """Image: (1 + <image, anomalous anchor>) / 2, [B]; map: one, of all stages together.

        What follows the cosines is linear, so the stages are joined first and blurred once.
        """
        pair = torch.stack([context.text[c.key].pair for c in context.categories])
        stream = self.adapted(features, context)
        logits = self.stage_logits(stream.patches, pair, features.grid)
        apart = torch.stack([dense.pair_difference(stage) for stage in logits])  # [K, B, h, w]
        value = (1 + (stream.image * pair[:, 1]).sum(-1)) / 2
        parts = self._most_anomalous(apart.mean(0), stream)
        if self.config.map.scale == "probability":
            plane = self._blurred(apart.mean(0), context.categories)
            return Scores([torch.stack([torch.zeros_like(plane), plane], 1)], value, parts=parts)
        plane = self._blurred(((1 + apart) / 2).sum(0), context.categories)
        info = self._ends(plane, context.categories) if self.stretches else {}
        return Scores([plane], value, kind="values", parts=parts, info=info)

    def _blurred(self, planes: Tensor, categories: Sequence[Category]) -> Tensor:
        """Smooth [B, h, w] on the grid, by the domain of each image."""
        chosen = self.config.post.sigma
        sigmas = [SIGMAS[c.domain] if isinstance(chosen, str) else chosen for c in categories]
        if len(set(sigmas)) == 1:
            return dense.grid_blur(planes, kernel(sigmas[0]), sigmas[0])
        rows = zip(planes.split(1), sigmas)
        return torch.cat([dense.grid_blur(row, kernel(s), s) for row, s in rows])

    def _ends(self, plane: Tensor, categories: Sequence[Category]) -> dict[str, Tensor]:
        """What stretching over a category asks of each image: the ends of its enlarged map."""
        size = (plane.shape[-2] * self.backbone.patch, plane.shape[-1] * self.backbone.patch)
        enlarged = dense.upsample(plane, size, True)
        medical = torch.tensor([float(c.domain == "medical") for c in categories])
        return {
            "map_smallest": enlarged.amin((1, 2)),
            "map_largest": enlarged.amax((1, 2)),
            "medical": medical.to(plane),
        }

    @staticmethod
    def _most_anomalous(apart: Tensor, stream: Stream) -> dict[str, Tensor]:
        """The most anomalous patch of every image, and its unit features, mean over the stages."""
        peak = apart.flatten(1).argmax(1)
        rows = torch.arange(len(peak), device=peak.device)
        held = torch.stack([stage[rows, peak] for stage in stream.patches])  # [K, B, E]
        return {"peak": peak, "units": unit(held.mean(0))}

    def map_spec(self) -> MapSpec:
        return MapSpec(order="upsample_then_softmax", align_corners=True)

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return half the map's maximum and half the image value; where scores are stretched, the
        value alone: :meth:`over_category` has the rest."""
        if self.stretches:
            return scores.image
        return (built.final.amax((-2, -1)) + scores.image) / 2

    @property
    def stretches(self) -> bool:
        return self.config.score.norm == "category"

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Stretch maps and image values to [0, 1] over the category, then mix them: half and half,
        or, by the rule, the map's maximum alone for medical ones."""
        low, high = info["map_smallest"].min(), info["map_largest"].max()
        largest = between(info["map_largest"], low, high)
        mixed = (largest + between(scores, scores.min(), scores.max())) / 2
        if self.config.image.domain_rule == "same":
            return mixed
        return torch.where(info["medical"] > 0, largest, mixed)

    def explain(self, scored: Scored[EnsembleFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the adapted features of the image's most
        anomalous patch, which is the region."""
        parts, context = scored.scores.parts, scored.context
        note = f"compared with the most anomalous patch; averaged over {len(prompts.TEMPLATES)} "
        note += "sentences"
        found = []
        for peak, units, category in zip(
            parts["peak"].tolist(), parts["units"], context.categories
        ):
            reasons = rank_phrases(units, context.text[category.key], k, note)
            for reason in reasons:
                reason.region = window_region(peak, scored.features.grid, 1)
            found.append(reasons)
        return found

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        self._anchors.clear()

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[EnsembleFeatures]
    ) -> dict[str, Tensor]:
        """Return the terms of the phase: ``focal``, ``dice_normal`` and ``dice_abnormal``, summed
        over the stages, with ``orthogonal`` (text) or ``image`` (image)."""
        if self.phase == "text":
            self._anchors.clear()
            return self.text_losses(features, batch, context)
        return self.image_losses(features, batch, context)

    def text_losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[EnsembleFeatures]
    ) -> dict[str, Tensor]:
        """Stage 1: patches of the ordinary tower, with attention by values, against the anchors.

        ``orthogonal``: the squared mean cosine of the anchors, unweighted.
        """
        pairs = {
            c.key: pair_of(self.sentences(c, context.text_encoder))
            for c in {c.key: c for c in context.categories}.values()
        }
        pair = torch.stack([pairs[c.key] for c in context.categories])
        cls = unit(features[CLS])[:, None]
        patches = [
            unit(context.image_encoder.project(state[:, 1:])) + cls  # not normalised again
            for state in self.surgery(features, context)
        ]
        terms = self._pixel_terms(self.stage_logits(patches, pair, features.grid), batch.masks)
        orthogonal = (pair[:, 0] * pair[:, 1]).sum(-1).mean() ** 2
        total = torch.stack(list(terms.values())).sum()
        total = total + self.config.stage1.orthogonal * orthogonal
        return {"total": total, **terms, "orthogonal": orthogonal}

    @torch.no_grad()
    def surgery(
        self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]
    ) -> list[Tensor]:
        """Return the states [B, 1+L, D] of the trained layers in a tower whose later blocks attend
        with their values, within their own stream.

        Along the batch (released), every place is a sequence of its own: the images of the batch.
        """
        across = self.config.stage1.attention == "batch"
        states = {
            n: features[Tap("tokens", n)] for n in self.first_stage_layers if n < self.v_start
        }

        def keep(layer: int, x: Tensor) -> Tensor:
            if layer in self.first_stage_layers:
                states[layer] = x.transpose(0, 1) if across else x
            return x

        start = features[Tap("tokens", self.v_start - 1)]
        if self.first_stage_layers[-1] >= self.v_start:
            context.image_encoder.resume(
                start.transpose(0, 1) if across else start,
                self.v_start,
                keep,
                last_block=self.first_stage_layers[-1],
                attention="v",
            )
        return [states[n] for n in self.first_stage_layers]

    def image_losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[EnsembleFeatures]
    ) -> dict[str, Tensor]:
        """Stage 2: the adapted stream against anchors that stand still; ``image``: cross-entropy of
        the image's cosines, without a temperature."""
        for category in context.categories:
            if category.key not in self._anchors:
                with torch.no_grad():
                    sentences = self.sentences(category, context.text_encoder)
                self._anchors[category.key] = pair_of(sentences)
        pair = torch.stack([self._anchors[c.key] for c in context.categories])
        stream = self.adapted(features, context)
        cosines = (pair @ stream.image[..., None])[..., 0]
        image = F.cross_entropy(cosines, batch.labels.long())
        logits = self.stage_logits(stream.patches, pair, features.grid)
        terms = {"image": image, **self._pixel_terms(logits, batch.masks)}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _pixel_terms(self, logits: Sequence[Tensor], masks: Tensor) -> dict[str, Tensor]:
        """Focal and both Dice losses of the enlarged maps, summed over the stages."""
        truth, found = masks[:, 0], []
        for stage in logits:
            p = dense.upsample(dense.pair_difference(stage), truth.shape[-1], True).sigmoid()
            parts = (losses.focal(p, truth), losses.dice(1 - p, 1 - truth), losses.dice(p, truth))
            found.append(torch.stack(parts))
        sums = torch.stack(found).sum(0).unbind()
        return dict(zip(("focal", "dice_normal", "dice_abnormal"), sums))

    def epoch_samples(
        self, samples: Sequence[Sample], phase: TrainPhase, epoch: int, seed: int
    ) -> Sequence[Sample] | None:
        """Change every picture where augmentation is on; stage 2 recolours, too."""
        if not self.config.train.augment:
            return None
        draw = random.Random(f"{seed}/{phase.name}/{epoch}")
        ordered = draw.sample(sorted(samples, key=lambda s: s.uid), len(samples))
        drawn = changes(self.backbone, toned=phase.name == "image")
        return augment.each(ordered, drawn, seed, f"{phase.name}/{epoch}")

    @property
    def adds_anew(self) -> bool:
        return self.config.train.augment

    def phases(self) -> list[TrainPhase]:
        first, second, betas = self.config.stage1, self.config.stage2, self.config.train.betas
        return [
            TrainPhase(
                name="text",
                epochs=first.epochs,
                batch_size=first.batch_size,
                parameters=("text_adapter.",),
                optimizer=adam(first.lr, betas),
            ),
            TrainPhase(
                name="image",
                epochs=second.epochs,
                batch_size=second.batch_size,
                parameters=("image_adapter.",),
                optimizer=adam(second.lr, betas),
                step_rate=lambda step, each: 0.5 ** sum(step >= at for at in second.halve),
            ),
        ]

    @classmethod
    def import_official(
        cls, state: object, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate the files of a training; see :mod:`zsad.methods.aaclip.convert`."""
        stages = len(chosen_blocks(cls.name, config.layers, backbone))
        return convert.import_official(state, stages, depths(config, backbone), backbone)


def depths(config: Config, backbone: BackboneInfo) -> tuple[int, int]:
    """Return how many blocks of the text and of the image tower get adapters."""
    return (
        depth("text_until", config.text_until, backbone.text_depth, backbone),
        depth("image_until", config.image_until, backbone.depth, backbone),
    )


def depth(key: str, wanted: str | int, blocks: int, backbone: BackboneInfo) -> int:
    """Return how many blocks get adapters.

    Raises :class:`RequestError` for more than there are.
    """
    if isinstance(wanted, str):
        return backbone.stages[0] if key == "image_until" else max(1, blocks // 4)
    if wanted > blocks:
        raise RequestError(
            f"aaclip.{key}={wanted} does not fit backbone '{backbone.name}'; it has {blocks} blocks"
        )
    return wanted


def kernel(sigma: float) -> int:
    """Return the side of the blur's kernel: 7 patches for sigma 1, 9 for 1.5 (released code)."""
    return 2 * int(3 * sigma) + 1


def pair_of(sentences: Tensor) -> Tensor:
    """Return the anchors [2, E]: unit means of unit sentences [T, E], normal ones first."""
    normal, anomalous = sentences[: prompts.NORMAL], sentences[prompts.NORMAL :]
    return unit(torch.stack([normal.mean(0), anomalous.mean(0)]))


def between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Bring ``x`` to the scale on which ``low`` is 0 and ``high`` is 1, both of a shape that goes
    with ``x``; where ``high`` is 1, ``x`` stays as it is."""
    span = (high - low).clamp(min=1e-12)
    return torch.where(high == 1, x, (x - low) / span)
