"""AdaCLIP (Cao et al., ECCV 2024), in the order of its released code.

Learned tokens join the sequence of the visual tower behind the patches and stand in place of
the first words of every text prompt.  They are static, one set for all images, plus dynamic, made
of the image's own class token.  Patches of four layers and the class token of the prompted pass are
compared with a prompt ensemble; what the most anomalous patches have in common joins the class
token (hybrid semantic fusion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps as dense
from zsad.components import losses
from zsad.components.prompt_ensemble import EnsembleFeatures, fill, in_templates, rank_phrases
from zsad.components.prompt_learning import unit
from zsad.components.released_state import LayeredRelease
from zsad.components.windows import window_region
from zsad.data.mixed_training import MosaicTraining
from zsad.method import TrainPhase, chosen_blocks
from zsad.methods.adaclip import convert, prompts
from zsad.methods.adaclip.config import Config
from zsad.methods.adaclip.fusion import semantics
from zsad.methods.adaclip.modules import Heads, StaticPrompts, contexts
from zsad.types import (
    BackboneInfo,
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

CLS = Tap("cls")
ENTRY = Tap("tokens", 0)  # where the prompts join: behind ln_pre, before the first block


@dataclass(frozen=True)
class Sentences:
    """The prompts of one category: ``phrases``, the first ``n_normal`` of them normal, each in
    every template; ``words`` [T, S, W] and ``ends``, their tokens.  ``units`` [T, E]: their unit
    features, where they depend on no image."""

    phrases: list[str]
    n_normal: int
    words: Tensor
    ends: tuple[int, ...]
    units: Tensor | None = None


@dataclass
class Seen:
    """What the visual side found in a batch: unit ``patches`` [B, K, L, E] of every layer and the
    unit ``image`` [B, E] of the class token."""

    patches: Tensor
    image: Tensor


class AdaCLIP(MosaicTraining[Config, Sentences], LayeredRelease[Config, Sentences]):
    """Hybrid prompts in both towers, and hybrid semantic fusion."""

    name: ClassVar[str] = "adaclip"
    from_release = staticmethod(convert.import_official)

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        depth, length = config.prompts.depth, config.prompts.length
        width, embed, text = backbone.width, backbone.embed, backbone.text_width
        self.layers = chosen_blocks(self.name, config.layers, backbone)
        # The first set of the text is never read: block 1 sees the words.  Released files hold it.
        self.text_prompter = StaticPrompts(depth, length, text)
        self.visual_prompter = StaticPrompts(depth, length, width)
        self.patch_token_layer = Heads(len(self.layers), width, embed)
        self.cls_token_layer = Heads(1, embed, embed)
        self.dynamic_visual_prompt_generator = Heads(length, embed, width)
        self.dynamic_text_prompt_generator = Heads(length, embed, text)
        self._sentences: dict[str, Sentences] = {}  # of the training categories

    # ---------------------------------------------------------------- features and text
    def feature_request(self) -> FeatureRequest:
        """The image's class token makes the dynamic prompts; a prompted pass starts from the
        embedded patches, an unprompted one is the common one."""
        taps = [Tap("tokens", n) for n in self.layers] if not self.prompts_in("V") else [ENTRY]
        return FeatureRequest.of(CLS, *taps, variant=self.config.encoder)

    def prompts_in(self, tower: str) -> bool:
        """Whether the visual (V) or the text tower (L) gets prompts."""
        return tower in self.config.prompts.branch and self.config.prompts.branch != "none"

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, Sentences]:
        """Tokenise the prompts, and encode them where they are the same for all images."""
        fixed = not self.prompts_in("L") or self.config.prompts.type == "S"
        found = {}
        with torch.no_grad():
            for category in categories:
                said = self.sentences(category, text)
                units = self.encoded(said, None, text)[0] if fixed else None
                found[category.key] = Sentences(
                    said.phrases, said.n_normal, said.words, said.ends, units
                )
        return found

    def sentences(self, category: Category, text: TextEncoder) -> Sentences:
        """Tokenise the prompts of a category."""
        normal, anomalous = fill(prompts.STATES, prompts.word(category, self.config.names))
        both = [*normal, *anomalous]
        tokens = text.tokenize(in_templates(both, prompts.TEMPLATES))
        return Sentences(both, len(normal), text.embed_tokens(tokens), tokens.ends)

    # ------------------------------------------------------------------- prompted towers
    def visual_contexts(self, cls: Tensor) -> list[Tensor]:
        """Return the visual tokens of every depth for class tokens [B, E]: [B, n, D] each."""
        kind, half = self.config.prompts.type, self.config.prompts.half
        dynamic = None if kind == "S" else self.dynamic_visual_prompt_generator(cls)
        found = contexts(self.visual_prompter, dynamic, kind, half=half)
        return [c.expand(len(cls), -1, -1) for c in found]

    def text_contexts(self, cls: Tensor | None) -> list[Tensor]:
        """Return the text tokens of every depth, [B, n, W] each; those of the first are unused."""
        kind, half = self.config.prompts.type, self.config.prompts.half
        dynamic = None if kind == "S" or cls is None else self.dynamic_text_prompt_generator(cls)
        return contexts(self.text_prompter, dynamic, kind, half=half)

    def seen(self, features: ImageFeatures, context: ScoreContext[Sentences]) -> Seen:
        """Run the visual tower with the prompts in it."""
        cls = features[CLS].float()
        states: list[Tensor]
        if self.prompts_in("V"):
            tokens = self.visual_contexts(cls)
            last, states = self.prompted(features[ENTRY], tokens, context)
            cls = context.image_encoder.project(last[:, 0]).float()
        else:
            states = [features.patches(Tap("tokens", n)).float() for n in self.layers]
        patches = [unit(part) for part in self.patch_token_layer.each(states)]
        return Seen(torch.stack(patches, 1), unit(self.cls_token_layer(cls)[:, 0]))

    def prompted(
        self, entry: Tensor, tokens: Sequence[Tensor], context: ScoreContext[Sentences]
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks on x_0 [B, 1+L, D] with prompts; return x_24 and the patches [B, L, D] of
        the layers.

        The prompts stand behind the patches, without positions.  At the inputs of blocks 2..J they
        are replaced; later they run on.
        """
        count = tokens[0].shape[1]
        states: list[Tensor] = []

        def replace_prompts(layer: int, x: Tensor) -> Tensor:
            if layer in self.layers:
                states.append(x[:, 1:-count].float())
            if layer < len(tokens):
                return torch.cat([x[:, :-count], tokens[layer].to(x.dtype)], 1)
            return x

        start = torch.cat([entry, tokens[0].to(entry.dtype)], 1)
        last = context.image_encoder.resume(start, 1, replace_prompts, checkpointed=True)
        return last[:, :-count], states

    def encoded(self, said: Sentences, cls: Tensor | None, text: TextEncoder) -> Tensor:
        """Return the unit features [B, T, E] of a category's prompts for class tokens [B, E].

        Block 1 sees the words; at the inputs of blocks 2..J the tokens stand in the places 1..n.
        B is 1 where the image plays no part.
        """
        deep = []
        if self.prompts_in("L"):
            deep = [tokens[:, None] for tokens in self.text_contexts(cls)[1:]]  # [B, 1, n, W]
        rows = len(deep[0]) if deep else 1
        words = said.words.expand(rows, -1, -1, -1)
        return unit(text.encode_embeddings(words, said.ends, deep))

    def texts(
        self,
        said: Mapping[str, Sentences],
        features: ImageFeatures,
        context: ScoreContext[Sentences],
    ) -> Tensor:
        """Return the unit features [B, T, E] of the prompts of every image."""
        keys = [c.key for c in context.categories]
        cls, found = features[CLS].float(), {}
        for key in dict.fromkeys(keys):
            rows = [i for i, other in enumerate(keys) if other == key]
            units = said[key].units
            if units is None:
                units = self.encoded(said[key], cls[rows], context.text_encoder)
            else:
                units = units[None]
            for i, row in enumerate(rows):
                found[row] = units[i if len(units) > 1 else 0]
        return torch.stack([found[row] for row in range(len(keys))])

    # -------------------------------------------------------------------------- scoring
    def logits(self, seen: Seen, pair: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return ``scale`` * cosine of every layer: [B, K, 2, h, w]."""
        planes = [
            dense.similarity(layer, pair, grid, self.config.scale)
            for layer in seen.patches.unbind(1)
        ]
        return torch.stack(planes, 1)

    def fused(self, seen: Seen, logits: Tensor) -> Tensor:
        """Return the unit image vectors [B, E]: the class token, and a share of what the most
        anomalous patches have in common."""
        hsf = self.config.hsf
        if hsf.kind == "none":
            return seen.image
        probability = dense.pair_probability(logits.detach().mean(1)).flatten(1)
        common = semantics(seen.patches, probability, hsf.clusters, hsf.seed, hsf.order)
        return unit(hsf.alpha * common.feature + (1 - hsf.alpha) * seen.image)

    def score(self, features: ImageFeatures, context: ScoreContext[Sentences]) -> Scores:
        """Image: probability [B] of the fused vector; map: the mean of the layers' logits, which
        are enlarged before the softmax."""
        units = self.texts(context.text, features, context)
        pair = pair_of(units)
        seen = self.seen(features, context)
        logits = self.logits(seen, pair, features.grid)
        image = self.fused(seen, logits)
        mean = logits.mean(1)
        states = unit(units.unflatten(1, (-1, len(prompts.TEMPLATES))).mean(2))  # [B, phrases, E]
        peak = dense.pair_difference(mean).flatten(1).argmax(1)
        parts = {"image": image, "states": states, "pair": pair, "peak": peak}
        return Scores([mean], self.image_pair(image, pair)[:, 1], parts=parts)

    def image_pair(self, image: Tensor, pair: Tensor) -> Tensor:
        """Return the probabilities [B, 2] of image vectors [B, E]."""
        return (self.config.scale * (pair @ image[..., None])[..., 0]).softmax(1)

    def map_spec(self) -> MapSpec:
        sigma = self.config.post.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
        )

    def explain(self, scored: Scored[Sentences], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases, whose features are the image's own, by their cosine with its
        vector; the region is the most anomalous patch."""
        parts, context = scored.scores.parts, scored.context
        note = f"averaged over {len(prompts.TEMPLATES)} sentences; the region is the most anomalous"
        found = []
        for row, category in enumerate(context.categories):
            said = context.text[category.key]
            text = EnsembleFeatures(
                parts["pair"][row], said.phrases, parts["states"][row], said.n_normal
            )
            reasons = rank_phrases(parts["image"][row], text, k, note)
            region = window_region(int(parts["peak"][row]), scored.features.grid, 1)
            for reason in reasons:
                reason.region = region
            found.append(reasons)
        return found

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Tokenise the prompts of the training categories."""
        self._sentences = {c.key: self.sentences(c, text) for c in categories}

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[Sentences]
    ) -> dict[str, Tensor]:
        """Return ``image``, the focal loss of the image score, and ``focal``, ``dice_abnormal`` and
        ``dice_normal`` of the enlarged maps, summed over the layers."""
        for category in context.categories:
            if category.key not in self._sentences:
                self._sentences[category.key] = self.sentences(category, context.text_encoder)
        pair = pair_of(self.texts(self._sentences, features, context))
        seen = self.seen(features, context)
        logits = self.logits(seen, pair, features.grid)
        scores = self.image_pair(self.fused(seen, logits), pair)
        terms = {"image": losses.focal(scores[..., None, None], batch.labels[:, None, None])}
        masks, rows = batch.masks[:, 0], self.config.loss.dice == "row"
        parts = []
        for layer in logits.unbind(1):
            p = dense.upsample(dense.pair_difference(layer), masks.shape[-1], True).sigmoid()
            parts.append(
                torch.stack(
                    [
                        losses.focal(p, masks),
                        losses.dice(p, masks, per_row=rows),
                        losses.dice(1 - p, 1 - masks, per_row=rows),
                    ]
                )
            )
        sums = torch.stack(parts).sum(0).unbind()
        terms |= dict(zip(("focal", "dice_abnormal", "dice_normal"), sums))
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="prompts",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("text_", "visual_", "patch_", "cls_", "dynamic_"),
                optimizer=lambda named: torch.optim.AdamW(
                    list(named.values()),
                    lr=train.lr,
                    betas=train.betas,
                    weight_decay=train.weight_decay,
                ),
            )
        ]


def pair_of(units: Tensor) -> Tensor:
    """Return the unit label embeddings [B, 2, E] of unit prompts [B, T, E]."""
    means = [units[:, : prompts.NORMAL].mean(1), units[:, prompts.NORMAL :].mean(1)]
    return F.normalize(torch.stack(means, 1), dim=-1)
