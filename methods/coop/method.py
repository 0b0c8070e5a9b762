"""CoOp (Zhou et al., IJCV 2022), adapted to anomaly detection as FAPrompt's comparison does.

Two templates share one learned context: [V_1]..[V_K] normal {class}. and
[V_1]..[V_K] anomalous {class}.  Training sees the class token alone; the map compares the last
block's patch tokens with the same two sentences.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad import maps as dense
from zsad.components import losses as zl
from zsad.components.prompt_learning import PromptLearner, encode
from zsad.components.windows import window_region
from zsad.data import augment
from zsad.errors import RequestError, counted
from zsad.method import CosineRate, ImportedCheckpoint, Method, TrainPhase
from zsad.methods.coop import convert
from zsad.methods.coop.config import Config
from zsad.on_device import told
from zsad.types import (
    BackboneInfo,
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
    from zsad.backbones.text import PromptTokens, TextEncoder

CLS = Tap("cls")


@dataclass(frozen=True)
class PromptPair:
    """The two prompts of a category; ``pair`` [2, E]: their unit features, where no image
    changes them."""

    tokens: PromptTokens
    pair: Tensor | None = None


class CoOp(Method[Config, PromptPair]):
    """A learned context shared by the normal and the anomalous template."""

    name: ClassVar[str] = "coop"
    conditional: ClassVar[bool] = False  # CoCoOp: the image shifts the context

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.prompts = PromptLearner(
            config.n_ctx, backbone.text_width, backbone.embed, self.conditional
        )
        self._first = self.prompts.ctx.detach().clone()  # what nothing has trained yet
        self._tokens: dict[str, PromptTokens] = {}  # by class name

    @property
    def dense(self) -> Tap:
        """P . ln_post of the last block's tokens."""
        return Tap("tokens_proj", self.backbone.depth)

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, self.dense)

    # ---------------------------------------------------------------------------- text
    def tokens(self, class_name: str, text: TextEncoder) -> PromptTokens:
        """Return the two prompts of a class, with a placeholder word per context vector."""
        if class_name not in self._tokens:
            context = " ".join(["X"] * self.config.n_ctx)
            words = (self.config.normal_word, self.config.anomalous_word)
            self._tokens[class_name] = text.tokenize(
                [f"{context} {w} {class_name}." for w in words]
            )
        return self._tokens[class_name]

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, PromptPair]:
        """Tokenise the prompts of every category; encode them where no image changes them."""
        prepared = {}
        for category in categories:
            tokens = self.tokens(category.class_name, text)
            pair = None if self.conditional else encode(self.prompts, tokens, None, text)[0]
            prepared[category.key] = PromptPair(tokens, pair)
        return prepared

    def pairs(self, unit_image: Tensor, context: ScoreContext[PromptPair]) -> Tensor:
        """Return the label embeddings [B, 2, E] of images with unit vectors ``unit_image`` [B, E].

        Images of one category are encoded together, without a meta-net only once.
        """
        names = [c.class_name for c in context.categories]
        out: list[Tensor] = [unit_image] * len(names)
        for name in dict.fromkeys(names):
            rows = [i for i, other in enumerate(names) if other == name]
            known = context.text.get(context.categories[rows[0]].key)
            if isinstance(known, PromptPair) and known.pair is not None:
                found = known.pair[None]
            else:
                tokens = self.tokens(name, context.text_encoder)
                seen = unit_image[rows] if self.conditional else None
                found = encode(self.prompts, tokens, seen, context.text_encoder)
            for row, pair in zip(rows, found.expand(len(rows), -1, -1)):
                out[row] = pair
        return torch.stack(out)

    # -------------------------------------------------------------------------- scoring
    def embeddings(
        self, features: ImageFeatures, context: ScoreContext[PromptPair]
    ) -> tuple[Tensor, Tensor]:
        """Return the unit class embeddings [B, E] and the label embeddings [B, 2, E]."""
        cls = F.normalize(features[CLS].float(), dim=-1)
        return cls, self.pairs(cls, context)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by."""
        given = self.config.temperature
        return self.backbone.logit_scale if isinstance(given, str) else 1 / given

    def logits(self, features: ImageFeatures, cls: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines / temperature: image [B, 2] and patches [B, 2, h, w]."""
        scale = self.scale
        image = scale * torch.einsum("be,bce->bc", cls, pair)
        patches = features.patches(self.dense).float()
        return image, dense.similarity(patches, pair, features.grid, scale)

    def score(self, features: ImageFeatures, context: ScoreContext[PromptPair]) -> Scores:
        """Image: probability [B] from the class token; map: pair logits."""
        cls, pair = self.embeddings(features, context)
        image, patches = self.logits(features, cls, pair)
        parts = {"cls": cls, "pair": pair}
        return Scores([patches], image.softmax(-1)[:, 1], parts=parts)

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(blur="gaussian" if sigma else "none", sigma=sigma)

    # ---------------------------------------------------------------------- explanation
    def explain(self, scored: Scored[PromptPair], k: int = 5) -> list[list[Explanation]]:
        """Return the two learned sentences, the one more like the image first.

        The region is the patch that speaks most for it; the note lists the words of the
        vocabulary that lie nearest to the learned ones (the original's Table 4).
        """
        features, scores, context = scored.features, scored.scores, scored.context
        cls, pair = scores.parts["cls"], scores.parts["pair"]
        margin = dense.pair_difference(scores.maps[0]).flatten(1)  # [B, L]
        contexts = self.prompts(cls if self.conditional else None)
        words = [", ".join(context.text_encoder.nearest_words(c)) for c in contexts]
        found = []
        for i, category in enumerate(context.categories):
            cosines, *places = told(pair[i] @ cls[i], margin[i].argmin(), margin[i].argmax())
            labels = (
                ("normal", self.config.normal_word),
                ("anomalous", self.config.anomalous_word),
            )
            reasons = [
                Explanation(
                    text=f"{word} {category.class_name}",
                    similarity=cosine,
                    label=label,  # type: ignore[arg-type]
                    source="learned",
                    region=window_region(place, features.grid, 1),
                    note=f"behind {self.config.n_ctx} learned vectors, to which these words of the "
                    f"vocabulary are nearest: {words[i % len(words)]}",
                )
                for (label, word), cosine, place in zip(labels, cosines, places)
            ]
            reasons.sort(key=lambda reason: -reason.similarity)
            for rank, reason in enumerate(reasons, start=1):
                reason.rank = rank
            found.append(reasons if k else [])  # one of each label
        return found

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Begin with the embeddings of ``ctx_init``; a training that goes on keeps what it has.

        Raises :class:`RequestError` if those are not ``n_ctx`` tokens.
        """
        words = self.config.ctx_init
        if not words or not torch.equal(self.prompts.ctx.detach().cpu(), self._first):
            return
        tokens = text.tokenize([words])
        count = tokens.ends[0] - 1  # between the start and the end of the text
        if count != self.config.n_ctx:
            raise RequestError(
                f"{self.name}.ctx_init='{words}' is {counted(count, 'token')}, {self.name}.n_ctx "
                f"is {self.config.n_ctx}; change one of them"
            )
        with torch.no_grad():
            self.prompts.ctx.copy_(text.embed_tokens(tokens)[0, 1 : 1 + count])

    def epoch_samples(
        self, samples: Sequence[Sample], phase: TrainPhase, epoch: int, seed: int
    ) -> Sequence[Sample] | None:
        """Change every picture anew, where that is asked for."""
        if self.config.train.augment == "none":
            return None
        key = f"{phase.name}/{epoch}"
        chosen = sorted(samples, key=lambda s: s.uid)
        random.Random(f"order/{seed}/{key}").shuffle(chosen)
        return augment.each(chosen, augment.crop_and_flip, seed, key)

    @property
    def adds_anew(self) -> bool:
        return self.config.train.augment != "none"

    @property
    def needs_masks(self) -> bool:
        """The classifier learns from labels alone."""
        return bool(self.config.loss.pixel_weight)

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[PromptPair]
    ) -> dict[str, Tensor]:
        """Return ``image``, the cross-entropy of the labels; on request also ``pixel``, focal and
        Dice terms of the map."""
        image, patches = self.logits(features, *self.embeddings(features, context))
        terms = {"image": F.cross_entropy(image, batch.labels.long())}
        total = terms["image"]
        if weight := self.config.loss.pixel_weight:
            enlarged = dense.upsample(dense.pair_probability(patches), batch.masks.shape[-1], False)
            terms["pixel"] = zl.segmentation(enlarged, batch.masks)
            total = total + weight * terms["pixel"]
        return {**terms, "total": total}

    def phases(self) -> list[TrainPhase]:
        """Learn the context (and CoCoOp's meta-net), by default with an annealed rate."""
        train = self.config.train
        cosine = CosineRate(train.epochs, train.warmup_epochs, train.warmup_lr / train.lr)
        return [
            TrainPhase(
                "context",
                train.epochs,
                train.batch_size,
                ("prompts.",),
                self._optimizer,
                rate=cosine if train.schedule == "cosine" else None,
            )
        ]

    def _optimizer(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        train = self.config.train
        return torch.optim.SGD(
            list(parameters.values()),
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
        )

    @classmethod
    def import_official(
        cls, state: Any, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate a released file; see :mod:`zsad.methods.coop.convert`."""
        return convert.import_official(state, cls.name, cls.conditional, backbone)
