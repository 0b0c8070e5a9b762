"""KAnoCLIP (Li et al., ICASSP 2025), top to bottom in the order of the paper.

No code was released; readings of our own are marked "ours" in ``config.yaml`` and listed in the
README.  A result is "our implementation of KAnoCLIP".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad import maps
from zsad.components import losses
from zsad.components.windows import window_region
from zsad.errors import RequestError, counted
from zsad.method import Method, TrainPhase
from zsad.methods.kanoclip.config import Config
from zsad.methods.kanoclip.knowledge import knowledge_loss, knowledge_mean
from zsad.methods.kanoclip.modules import BiCMCI, ConvAdapter
from zsad.on_device import told
from zsad.prompt_bank.bank import GENERIC_ANOMALIES, bank, generation_command
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
    from zsad.backbones.text import TextEncoder

STATES = (("normal", "perfect"), ("abnormal", "defective"))  # Eq. 1
INIT_STD = 0.02
NOTE = "the description most like the most conspicuous part of the picture, which is the region"


@dataclass(frozen=True)
class TextState:
    """``pair`` [2, E] unit; ``texts`` with unit ``embeddings`` [T, E] for explanations."""

    pair: Tensor
    texts: list[str]
    embeddings: Tensor
    source: str


class KAnoCLIP(Method[Config, TextState]):
    """Learned prompts pulled by knowledge, fused with v-v patch features at four stages."""

    name: ClassVar[str] = "kanoclip"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        if config.knpl.enabled:
            shape = (2, config.knpl.n_ctx, backbone.text_width)  # normal, abnormal
            self.context_tokens = nn.Parameter(torch.randn(shape) * INIT_STD)
        if config.bicmci.enabled:
            count = 1 if config.bicmci.share_stages else len(backbone.stages)
            self.interaction = nn.ModuleList(
                [BiCMCI(config.bicmci, backbone.width, backbone.embed) for _ in range(count)]
            )
        if config.conv_adapter != "off":
            self.conv_adapter = ConvAdapter(
                backbone.embed, config.conv_adapter, config.conv_adapter_residual, config.d_bottle
            )
        self.knowledge: dict[str, Tensor] = {}  # category key -> unit mean [E], training only

    # ----------------------------------------------------------------- Sec. 2.3: CLIP-VV
    @property
    def stage_taps(self) -> list[Tap]:
        """Patch taps of the four stages.  A stage below the first v-v block is the common
        stream of both paths."""
        start = self.backbone.vv_start(self.config.vv.blocks)
        project = "" if self.config.bicmci.enabled else "_proj"
        return [
            Tap(f"vv{project}", layer, start)
            if self.config.vv.enabled and layer >= start
            else Tap(f"tokens{project}", layer)
            for layer in self.backbone.stages
        ]

    @property
    def global_tap(self) -> Tap:
        if self.config.global_token == "vv" and self.config.vv.enabled:
            start = self.backbone.vv_start(self.config.vv.blocks)
            return Tap("vv_proj", self.backbone.depth, start)
        return Tap("cls")

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(self.global_tap, *self.stage_taps)

    def global_feature(self, features: ImageFeatures) -> Tensor:
        """The global visual feature [B, E], adapted (Eq. 11), unit."""
        value = features[self.global_tap]
        value = (value if value.dim() == 2 else value[:, 0]).float()
        if self.config.conv_adapter != "off":
            value = self.conv_adapter(value)
        return F.normalize(value, dim=-1)

    # ----------------------------------------------- Sec. 2.2: knowledge-driven prompts
    def text_pairs(self, names: Sequence[str], text: TextEncoder) -> Tensor:
        """Unit pairs [C, 2, E]: mean over the state words of each label (Eq. 1)."""
        if not self.config.knpl.enabled:
            prompts = [
                f"a photo of {a} {s[0]} {n}" for n in names for a, s in zip(("a", "an"), STATES)
            ]
            features = F.normalize(text.encode_texts(prompts).float(), dim=-1)
            pairs: Tensor = features.unflatten(0, (-1, 2))
            return pairs
        n = self.config.knpl.n_ctx
        out = []
        for context, words in zip(self.context_tokens, STATES):
            tokens = text.tokenize(
                [" ".join(["X"] * n + [w, c]) + "." for c in names for w in words]
            )
            embedded = text.embed_tokens(tokens)  # [T, S, W]
            prefix = torch.cat([embedded[:1, :1], context[None]], dim=1)
            found = text.encode_prefixed(prefix, embedded[None, :, 1 + n :], tokens.ends)[0]
            units = F.normalize(found.float(), dim=-1).unflatten(0, (len(names), len(words)))
            out.append(F.normalize(units.mean(1), dim=-1))
        return torch.stack(out, dim=1)

    @torch.no_grad()
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Build the knowledge mean of every training category (Eq. 3).

        Raises :class:`RequestError` where the bank holds fewer than ``knpl.kb.n`` descriptions of a
        category.
        """
        self.knowledge.clear()
        if not self.config.knpl.enabled:
            return
        for category in categories:
            general = general_descriptions(category, self.config.knpl.kb.n)
            specific = list(captions.get(category.key, ()))
            if general or specific:
                encoded = text.encode_texts([*general, *specific])
                self.knowledge[category.key] = knowledge_mean(
                    encoded[: len(general)], encoded[len(general) :], self.config.knpl.kb.weighting
                )

    def knowledge_term(self, categories: Sequence[Category], pairs: Tensor) -> dict[str, Tensor]:
        """L_KD: the mean of Eq. 2 over the categories that have knowledge; pairs [C, 2, E].

        With knowledge, two more for the log: ``knowledge_known``, 1 if some category of the batch
        has any, and ``knowledge_active``, the share of those in which the hinge is active.
        """
        zero = pairs.new_zeros(())
        if not self.knowledge:
            return {"knowledge": zero}
        known = [i for i, c in enumerate(categories) if c.key in self.knowledge]
        if not known:
            return {"knowledge": zero, "knowledge_known": zero, "knowledge_active": zero}
        target = torch.stack([self.knowledge[categories[i].key] for i in known]).to(pairs)
        knpl = self.config.knpl
        terms = knowledge_loss(
            target, pairs[known, 0], pairs[known, 1], knpl.kd_margin, knpl.kd_form
        )
        active = (terms > 0).to(terms).mean()
        return {
            "knowledge": terms.mean(),
            "knowledge_known": torch.ones_like(zero),
            "knowledge_active": active,
        }

    # ------------------------------------------------------------------- Sec. 2.4: maps
    def stage_logits(
        self, features: ImageFeatures, pairs: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Pair logits [B, 2, h, w] and visual tokens [B, L, E] of every stage (Eq. 9)."""
        scale, grid = self.config.score.scale, features.grid
        logits, visuals = [], []
        for i, tap in enumerate(self.stage_taps):
            patches, text = features.patches(tap).float(), pairs
            if self.config.bicmci.enabled:
                patches, text = self.interaction[i % len(self.interaction)](patches, pairs, grid)
            logits.append(maps.similarity(patches, text, grid, scale))
            visuals.append(patches)
        if self.config.bicmci.fuse == "softmax_of_mean_logit":
            logits = [torch.stack(logits).mean(0)]
        return logits, visuals

    def map_spec(self) -> MapSpec:
        """Eq. 10: (M^a + 1 - M^n) / 2 of the stages' mean, smoothed."""
        sigma = self.config.post.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
        )

    # ------------------------------------------------------------------ Sec. 2.4: score
    def image_probability(self, features: ImageFeatures, pairs: Tensor) -> Tensor:
        """First term of Eq. 12: softmax over the pair, abnormal side [B]."""
        cosine = (self.global_feature(features)[:, None] * pairs).sum(-1)
        return (cosine / self.config.score.temperature).softmax(-1)[:, 1]

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, TextState]:
        pairs = self.text_pairs([c.class_name for c in categories], text)
        out = {}
        for category, pair in zip(categories, pairs):
            entry = bank().find("kanoclip", category)
            texts = list(entry.texts["abnormal"]) if entry else list(GENERIC_ANOMALIES)
            units = F.normalize(text.encode_texts(texts).float(), dim=-1)
            out[category.key] = TextState(pair, texts, units, "bank" if entry else "generic")
        return out

    def score(self, features: ImageFeatures, context: ScoreContext[TextState]) -> Scores:
        pairs = torch.stack([context.text[c.key].pair for c in context.categories])
        logits, visuals = self.stage_logits(features, pairs)
        return Scores(
            logits, self.image_probability(features, pairs), parts={"visual": visuals[-1]}
        )

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Eq. 12, halved so that it stays in [0, 1] (the ranking is unchanged)."""
        return (scores.image + built.final.amax(dim=(-2, -1))) / 2

    # ---------------------------------------------------------- Sec. 2.5: training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[TextState]
    ) -> dict[str, Tensor]:
        """Eq. 13.  Terms: ``knowledge`` (Eq. 2), ``image`` (Eq. 14), ``local`` (Eq. 15)."""
        weights = self.config.loss
        unique = list({c.key: c for c in context.categories}.values())
        rows = {c.key: i for i, c in enumerate(unique)}
        pairs = self.text_pairs([c.class_name for c in unique], context.text_encoder)
        knowledge = self.knowledge_term(unique, pairs)
        pairs = pairs[[rows[c.key] for c in context.categories]]
        logits, _ = self.stage_logits(features, pairs)
        size = batch.masks.shape[-1]
        planes = [torch.sigmoid(maps.upsample(maps.pair_difference(x), size, True)) for x in logits]
        fused = torch.stack(planes).mean(0)
        where = planes if weights.local_on == "stages" else [fused]
        local = torch.stack([losses.segmentation(p, batch.masks) for p in where]).sum()
        peak = maps.gaussian_blur(fused, self.config.post.sigma).amax(dim=(-2, -1))
        peak = peak if self.config.score.max_grad else peak.detach()
        total_score = (self.image_probability(features, pairs) + peak) / 2
        image = F.binary_cross_entropy(total_score.clamp(1e-6, 1 - 1e-6), batch.labels.float())
        total = weights.knowledge * knowledge["knowledge"]
        total = total + weights.image * image + weights.local * local
        return {"total": total, **knowledge, "image": image, "local": local}

    def phases(self) -> list[TrainPhase]:
        """One phase; none when every trained part is switched off."""
        if not any(True for _ in self.parameters()):
            return []
        train = self.config.train

        def optimizer(named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
            context = [p for n, p in named.items() if n == "context_tokens"]
            modules = [p for n, p in named.items() if n != "context_tokens"]
            groups = [
                {"params": context, "lr": train.lr_context},
                {"params": modules, "lr": train.lr_modules},
            ]
            return torch.optim.Adam([g for g in groups if g["params"]], betas=train.betas)

        names = ("context_tokens", "interaction", "conv_adapter")
        return [
            TrainPhase(
                "joint", train.epochs, train.batch_size, names, optimizer, train.gradient_clip
            )
        ]

    def training_facts(self, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Share of training steps' categories in which the hinge of Eq. 2 was active, over the
        steps that had knowledge."""
        rows = [row for row in history if "knowledge_known" in row]
        known = sum(row["steps"] * row["knowledge_known"] for row in rows)
        if not known:
            return {}
        active = sum(row["steps"] * row["knowledge_active"] for row in rows)
        return {"knowledge_active_share": round(active / known, 4)}

    def run_info(
        self, text: TextState | None = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """What was chosen where the paper is silent."""
        return {"own_readings": self.config.own_readings()}

    # ------------------------------------------------------------------- explanation
    def explain(self, scored: Scored[TextState], k: int = 5) -> list[list[Explanation]]:
        """Rank known descriptions, and the learned normal prompt, by their cosine with the most
        anomalous 1 % of the patches."""
        features, scores, context = scored.features, scored.scores, scored.context
        height, width = features.grid
        grid_map = torch.stack([x[:, 1] - x[:, 0] for x in scores.maps]).mean(0).flatten(1)
        count = max(1, round(0.01 * height * width))
        top = grid_map.topk(count, dim=1).indices
        visual = F.normalize(scores.parts["visual"], dim=-1)
        out = []
        for i, category in enumerate(context.categories):
            state: TextState = context.text[category.key]
            focus = F.normalize(visual[i, top[i]].mean(0), dim=-1)
            similarity = state.embeddings @ focus
            best = similarity.topk(min(k, len(state.texts)))
            values, places, first, normal = told(
                best.values, best.indices, top[i, 0], state.pair[0] @ focus
            )
            region = window_region(first, (height, width), 1)
            reasons = [
                Explanation(state.texts[j], value, "anomalous", state.source, rank, region, NOTE)
                for rank, (value, j) in enumerate(zip(values, places), start=1)
            ]
            out.append([*reasons, self._normal_reason(category, normal)])
        return out

    def _normal_reason(self, category: Category, cosine: float) -> Explanation:
        words = " or ".join(STATES[0])
        return Explanation(
            text=f"a {words} {category.class_name}",
            similarity=cosine,
            label="normal",
            source="learned" if self.config.knpl.enabled else "template",
            rank=1,
            note="the normal prompt, compared with the most conspicuous part of the picture",
        )


def general_descriptions(category: Category, count: int) -> list[str]:
    """The first ``count`` descriptions of a category in the prompt bank; none without an entry.

    Raises :class:`RequestError` where an entry has fewer, with the command that asks for more.
    """
    entry = bank().find("kanoclip", category)
    texts = list(entry.texts["abnormal"]) if entry else []
    if entry and len(texts) < count:
        raise RequestError(
            f"knpl.kb.n={count}: the prompt bank holds {counted(len(texts), 'description')} "
            f"of {category.class_name}; take n={len(texts)}, or have a language model write more: "
            f"`{generation_command('kanoclip', category)}`"
        )
    return texts[:count]
