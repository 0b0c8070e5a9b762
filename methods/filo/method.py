"""FiLo (Gu et al. 2024), in the order of its paper: FG-Des, HQ-Loc, adapter, losses.

Patch features of the ordinary path pass linear layers, those of the v-v path pass MMCI; all are
compared with the label embeddings of image-conditioned, position-enhanced prompts.  Boxes of an
open-vocabulary detector choose the position and damp the map outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad.components import losses as zl
from zsad.components.prompt_learning import PromptLearner, encode
from zsad.data.mixed_training import MosaicTraining
from zsad.maps import pair_difference, similarity, upsample
from zsad.method import BoxRequest, ImportedCheckpoint, TrainPhase
from zsad.methods.filo import boxes as fb
from zsad.methods.filo import convert, prompts, schedule, taps, texts
from zsad.methods.filo.config import Config, Grounding, Score
from zsad.methods.filo.explain import explain_image, normal_reason
from zsad.methods.filo.modules import ImageAdapter, stages
from zsad.runtime.boxes import BoxRule
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

if TYPE_CHECKING:
    from zsad.backbones.engines.heads import HeadEngine
    from zsad.backbones.text import TextEncoder

CLS = Tap("cls")


class FiLo(MosaicTraining[Config, texts.PromptTable]):
    """Fine-grained descriptions and high-quality localisation."""

    name: ClassVar[str] = "filo"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.taps = taps.choose(config, backbone)
        width, embed = backbone.width, backbone.embed
        self.normal_prompts = self._learner()
        self.abnormal_prompts = self._learner()
        self.qkv = stages(config.branches.qkv, len(self.taps.qkv), width, embed, config.mmci)
        self.vv = stages(config.branches.vv, len(self.taps.vv), width, embed, config.mmci)
        self.adapter = ImageAdapter(embed, config.adapter)
        self._tables: dict[str, texts.PromptTable] = {}
        self._pairs = texts.PairCache()

    def _learner(self) -> PromptLearner | None:
        prompt, info = self.config.prompt, self.backbone
        if prompt.learner == "fixed":
            return None
        return PromptLearner(prompt.n_ctx, info.text_width, info.embed, prompt.learner == "cocoop")

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(
            CLS, *self.taps.qkv, *self.taps.vv, variant=taps.variant(self.config, self.backbone)
        )

    # ------------------------------------------------------------- FG-Des (section 3.2)
    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, texts.PromptTable]:
        """Tokenise the prompts of every category; encode them where no image changes them."""
        tables: dict[str, texts.PromptTable] = {}
        spoken: dict[str, str] = {}
        for category in categories:
            entry = prompts.find_entry(category, self.config.descriptions)
            table = texts.tokenize(prompts.word(category, entry, self.config.prompt), text)
            if self.config.prompt.learner != "cocoop":
                normal = encode(self.normal_prompts, table.normal, None, text)
                abnormal = encode(self.abnormal_prompts, table.abnormal, None, text)
                table = dataclasses.replace(table, fixed=(normal, abnormal))
            tables[category.key] = table
            spoken[category.key] = entry.class_name
        if self.config.prompt.names == "released":
            # One table per spoken name: the last category of a name serves all of that name.
            last = {spoken[key]: table for key, table in tables.items()}
            tables = {key: last[spoken[key]] for key in tables}
        self._tables.update(tables)
        return tables

    def _table(
        self, category: Category, context: ScoreContext[texts.PromptTable], trained: bool
    ) -> texts.PromptTable:
        """The prepared table; while the context is being learned, one without stored features."""
        prepared = context.text.get(category.key)
        if trained and isinstance(prepared, texts.PromptTable):
            return prepared
        if category.key not in self._tables:
            entry = prompts.find_entry(category, self.config.descriptions)
            wording = prompts.word(category, entry, self.config.prompt)
            self._tables[category.key] = texts.tokenize(wording, context.text_encoder)
        return dataclasses.replace(self._tables[category.key], fixed=None)

    def _text_side(
        self,
        unit_image: Tensor,
        positions: Sequence[tuple[int, ...] | None],
        context: ScoreContext[texts.PromptTable],
        trained: bool = False,
        shares: Tensor | None = None,
    ) -> texts.TextSide:
        """Label embeddings for what the meta-nets see, ``unit_image`` [B, E]."""
        tables = {c.key: self._table(c, context, trained) for c in context.categories}
        side = texts.text_side(
            (self.normal_prompts, self.abnormal_prompts),
            [tables[c.key] for c in context.categories],
            positions,
            unit_image,
            context.text_encoder,
            shares,
        )
        if self.config.text_norm == "frobenius":
            # Released code divides the stacked pair by its joint norm: rows of length 1/sqrt 2.
            joint = side.pair.flatten(1).norm(dim=-1)[:, None, None]
            side = texts.TextSide(side.pair / joint, side.abnormal)
        return side

    def _image_vectors(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Unit global vectors [B, E]: as the encoder gives them, and adapted (section 3.4)."""
        raw = features[CLS].float()
        return F.normalize(raw, dim=-1), F.normalize(self.adapter(raw), dim=-1)

    # ------------------------------------------------------------- HQ-Loc (section 3.3)
    def _locate(
        self, features: ImageFeatures, context: ScoreContext[texts.PromptTable]
    ) -> list[fb.Located]:
        """Keep boxes and read positions off them, per image."""
        if context.boxes is None or not self._grounding.enabled:
            return [fb.Located()] * features.batch_size
        size = features.grid[0] * self.backbone.patch
        asked = {c.key: self._asked(c) for c in context.categories}
        return [
            fb.locate(found, asked[c.key], self._grounding, self.config.boxes.arithmetic, size)
            for found, c in zip(context.boxes, context.categories)
        ]

    @property
    def _grounding(self) -> Grounding:
        assert isinstance(self.config.grounding, Grounding)  # Config.__post_init__ sees to it
        return self.config.grounding

    @property
    def _score(self) -> Score:
        assert isinstance(self.config.score, Score)
        return self.config.score

    def _asked(self, category: Category) -> tuple[str, ...]:
        entry = prompts.find_entry(category, self.config.descriptions)
        return prompts.word(category, entry, self.config.prompt).asked

    def box_request(self, categories: Sequence[Category]) -> BoxRequest | None:
        """Ask for generic anomaly words and the category's descriptions."""
        if self._grounding.enabled is False:
            return None
        return BoxRequest(
            {c.key: self._asked(c) for c in categories}, dataclasses.asdict(self._grounding)
        )

    def box_rule(self, category: Category) -> BoxRule | None:
        """Boxes that are found later choose the cell, of which prompts speak, and damp the map."""
        if self._grounding.enabled is False or self.config.prompt.positions != "boxes":
            return None
        return fb.rule(self._asked(category), self._grounding, self.config.boxes.arithmetic)

    def _stage_logits(
        self, features: ImageFeatures, pair: Tensor, heads: HeadEngine | None = None
    ) -> list[list[Tensor]]:
        """Pair logits [B, 2, h, w] per stage: one, or one per MMCI kernel (Eq. 2)."""
        found = []
        for tap, project in [*zip(self.taps.qkv, self.qkv), *zip(self.taps.vv, self.vv)]:
            patches = features.patches(tap).float()
            found.append(
                [
                    similarity(p, pair, features.grid, self.config.logit_scale, "patches")
                    for p in project(patches, features.grid, heads)
                ]
            )
        return found

    def score(self, features: ImageFeatures, context: ScoreContext[texts.PromptTable]) -> Scores:
        """Maps: pair logits per stage; image: probability, or a cosine for ``score: released``."""
        raw, adapted = self._image_vectors(features)
        located = self._locate(features, context)
        positions = [self._positions(place) for place in located]
        condition = adapted if self.config.meta_input == "adapted" else raw
        side = self._text_side(condition, positions, context, trained=True, shares=context.cells)
        cosines = torch.einsum("be,bce->bc", adapted, side.pair)  # [B, 2]
        if self._score.kind == "released":
            image = cosines[:, 1]
        else:
            image = (cosines / self._score.temperature).softmax(-1)[:, 1]
        similarities = [  # [Ta]: mean over the positions of the image
            (abnormal @ vector).mean(-1) for abnormal, vector in zip(side.abnormal, adapted)
        ]
        logits = self._stage_logits(features, side.pair, context.heads)
        return Scores(
            maps=[kernel for stage in logits for kernel in stage],
            image=image,
            parts={
                "located": located,
                "similarities": similarities,
                "pair": side.pair,
                "normal": cosines[:, 0],
            },
            # With cells in their place, what the boxes cover is known to the caller.
            boxes=[place.kept for place in located] if context.cells is None else None,
        )

    def _positions(self, place: fb.Located) -> tuple[int, ...] | None:
        if self.config.prompt.positions != "boxes" or place.position is None:
            return None
        return (place.position,)

    def map_spec(self) -> MapSpec:
        """Eqs. 2 to 4: probabilities of all stages, averaged, smoothed, damped outside boxes."""
        post = self.config.post
        weights = []
        for project in [*self.qkv, *self.vv]:
            separate = getattr(project, "separate", 1)
            weights += [1.0 / separate] * separate
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            weights=tuple(weights),
            norm="minmax" if post.norm == "minmax" else "none",
            blur=post.blur,
            sigma=post.sigma,
            box_factor=self.config.boxes.factor,
            box_arithmetic=self.config.boxes.arithmetic,
            box_order=self.config.boxes.order,
        )

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Eq. 1, halved to stay in [0, 1] (ranks do not change)."""
        chosen = built.final if self._score.max_from == "filtered" else built.unsuppressed
        return (scores.image + chosen.amax(dim=(-2, -1))) / 2

    def explain(self, scored: Scored[texts.PromptTable], k: int = 5) -> list[list[Explanation]]:
        """The ``k`` most similar descriptions of each image, then its boxes with their phrases, and
        how much it is like what is normal."""
        context, parts = scored.context, scored.scores.parts
        return [
            [
                *explain_image(self._table(c, context, trained=True).wording, values, place, k),
                normal_reason(c.class_name, normal),
            ]
            for c, values, place, normal in zip(
                context.categories,
                parts["similarities"],
                parts["located"],
                parts["normal"].tolist(),
            )
        ]

    def run_info(
        self, text: texts.PromptTable | None = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """How many prompts each category has and where its descriptions come from."""
        return {
            "descriptions": {
                key: {
                    "source": t.wording.source,
                    "digest": t.wording.digest,
                    "prompts": len(t.wording.normal) + len(t.wording.abnormal),
                }
                for key, t in sorted(self._tables.items())
            }
        }

    # ------------------------------------------------------------- losses (section 3.5)
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[texts.PromptTable]
    ) -> dict[str, Tensor]:
        """Named terms; ``local`` sums Eqs. 7 to 9 over the stages, ``global`` is Eq. 6."""
        if self.phase == "adapter":
            image = self._image_loss(features, batch, context)
            return {"global": image, "total": image}
        raw, _ = self._image_vectors(features)
        side = self._text_side(raw, [None] * features.batch_size, context)
        maps = self._training_maps(features, side.pair, batch.masks.shape[-1])
        loss = self.config.loss
        if loss.maps == "fused":
            maps = {"map": torch.stack(list(maps.values())).mean(0)}
        terms: dict[str, Tensor] = {}
        for where, p in maps.items():
            pair = torch.stack([1 - p, p], dim=1)
            squared, rows = loss.dice == "squared", loss.dice_rows
            terms[f"focal_{where}"] = zl.focal(pair, batch.masks)
            terms[f"dice_abnormal_{where}"] = zl.dice(p, batch.masks, squared, rows)
            terms[f"dice_normal_{where}"] = zl.dice(1 - p, 1 - batch.masks, squared, rows)
        terms["local"] = torch.stack(list(terms.values())).sum()
        total = terms["local"]
        if self.config.train.joint_global:
            fused = torch.stack(list(maps.values())).mean(0)
            terms["global"] = self._image_terms(features, side.pair, fused, batch)
            total = total + terms["global"]
        return {**terms, "total": total}

    def _training_maps(self, features: ImageFeatures, pair: Tensor, size: int) -> dict[str, Tensor]:
        """Anomaly probability [B, H, W] of every stage at mask size."""
        names = [f"qkv_{layer}" for layer in self.taps.qkv_layers]
        names += [f"vv_{layer}" for layer in self.taps.vv_layers]
        maps = {}
        for where, logits in zip(names, self._stage_logits(features, pair)):
            planes = [torch.sigmoid(upsample(pair_difference(x), size, True)) for x in logits]
            maps[where] = torch.stack(planes).mean(0) if len(planes) > 1 else planes[0]
        return maps

    def _image_loss(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[texts.PromptTable]
    ) -> Tensor:
        """Eq. 6 for the adapter phase: the text side is held fixed."""
        with torch.no_grad():
            raw, adapted = self._image_vectors(features)
            pair = (
                self._text_side(adapted, [None] * features.batch_size, context).pair
                if self.config.meta_input == "adapted"
                else self._kept_pairs(raw, context)
            )
            fused = None
            if self.config.loss.image == "score":
                maps = self._training_maps(features, pair, batch.masks.shape[-1])
                fused = torch.stack(list(maps.values())).mean(0)
        return self._image_terms(features, pair, fused, batch)

    def _image_terms(
        self, features: ImageFeatures, pair: Tensor, fused: Tensor | None, batch: TrainBatch
    ) -> Tensor:
        _, adapted = self._image_vectors(features)
        logits = torch.einsum("be,bce->bc", adapted, pair) / self._score.temperature
        if self.config.loss.image == "similarity" or fused is None:
            return F.cross_entropy(logits, batch.labels)
        score = (logits.softmax(-1)[:, 1] + fused.amax(dim=(-2, -1))) / 2
        return F.binary_cross_entropy(score.clamp(1e-6, 1 - 1e-6), batch.labels.to(score))

    def _kept_pairs(self, unit_image: Tensor, context: ScoreContext[texts.PromptTable]) -> Tensor:
        """Label embeddings [B, 2, E] of the adapter phase, where they depend on the image only:
        computed in its first epoch, then read back."""
        learners = [m for m in (self.normal_prompts, self.abnormal_prompts) if m is not None]
        self._pairs.begin([p for m in learners for p in m.parameters()])
        names = [f"{c.key}/{u}" for c, u in zip(context.categories, context.uids)]
        found = self._pairs.get(names, unit_image)
        if found is None:
            side = self._text_side(unit_image, [None] * len(unit_image), context)
            found = side.pair
            self._pairs.put(names, unit_image, found)
        return found

    # ------------------------------------------------------------- training (section 4.3)
    def phases(self) -> list[TrainPhase]:
        """Prompts and projections, then the adapter."""
        return schedule.phases(self.config)

    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Build the shared tables of ``prompt.names: released``."""
        with torch.no_grad():
            self.prepare_text(categories, text)

    @classmethod
    def import_official(
        cls, state: object, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate ``{"filo": {...}}`` as released; see :mod:`zsad.methods.filo.convert`."""
        return convert.import_official(state, config, backbone)
