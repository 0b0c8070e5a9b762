"""AdaptCLIP (Gao et al., AAAI 2026), in the order of the paper.

CLIP stays as it is.  A *textual* adapter learns two prompts that name nothing; a *visual* one moves
the image vector and the patches, which are compared with fixed prompts; a *prompt-query* one
compares the patches with those of normal images.  They are adapted each by its own losses, never
text and image against each other.  Without references the last one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zsad import maps as dense
from zsad.components.losses import pixel_terms
from zsad.components.memory_bank import MemoryBank, bank_of
from zsad.components.optimizers import adam
from zsad.components.prompt_ensemble import (
    EnsembleFeatures,
    encode_ensemble,
    fill,
    in_templates,
    rank_phrases,
)
from zsad.components.prompt_learning import learned_tokens, prompt_text, unit
from zsad.components.released_state import LayeredRelease
from zsad.method import TrainPhase, chosen_blocks
from zsad.methods.adaptclip import convert
from zsad.methods.adaptclip.config import Config
from zsad.methods.adaptclip.modules import PromptQuery, ResMLP
from zsad.methods.adaptclip.prompts import OWN_TEMPLATES, STATES
from zsad.types import (
    BackboneInfo,
    BuiltMaps,
    Category,
    Explanation,
    FeatureRequest,
    Fuse,
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

FUSIONS: dict[str, Fuse] = {"avg": "mean", "harm": "harmonic"}


@dataclass(frozen=True)
class Pairs:
    """Label embeddings [2, E], not unit: of the ``fixed`` prompts, and of the ``learned`` ones;
    ``ensemble``: the fixed ones by phrase."""

    fixed: Tensor
    learned: Tensor
    ensemble: EnsembleFeatures


@dataclass(frozen=True)
class Compared:
    """A layer of the query against its references: the distance ``align`` [B, h, w] in [0, 2] to
    the nearest patch, pair logits of the ``local`` [B, 2, 4h, 4w] and the ``whole`` head [B, 2]."""

    align: Tensor
    local: Tensor
    whole: Tensor


class AdaptCLIP(LayeredRelease[Config, Pairs]):
    """Textual, visual and prompt-query adapter."""

    name: ClassVar[str] = "adaptclip"
    from_release = staticmethod(convert.import_official)

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        embed, start = backbone.embed, backbone.vv_start(config.vv_blocks)
        layers = chosen_blocks(self.name, config.layers, backbone)
        self.taps = [Tap("vv_proj", layer, start) for layer in layers]
        self.image_tap = Tap(config.image_token)
        self.normal_tokens = learned_tokens(config.n_ctx, backbone.text_width)
        self.abnormal_tokens = learned_tokens(config.n_ctx, backbone.text_width)
        self.visual_local = ResMLP(embed, config.reduction)
        self.visual_global = ResMLP(embed, config.reduction)
        self.query = PromptQuery(len(self.taps), embed, config.mid)

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(self.image_tap, *self.taps, variant=self.config.encoder)

    # ---------------------------------------------------------------------------- text
    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, Pairs]:
        """Encode both pairs, which are the same for every category."""
        with torch.no_grad():
            pairs = Pairs(self.fixed_pair(text), self.learned_pair(text), self.ensemble(text))
        return {c.key: pairs for c in categories}

    def ensemble(self, text: TextEncoder) -> EnsembleFeatures:
        """Return the states of the fixed prompts, each averaged over the templates."""
        return encode_ensemble(fill(STATES, self.config.object), text, OWN_TEMPLATES)

    def fixed_pair(self, text: TextEncoder) -> Tensor:
        """Return the means [2, E] of the fixed prompts as they are, not unit."""
        found = []
        for phrases in fill(STATES, self.config.object):
            found.append(text.encode_texts(in_templates(phrases, OWN_TEMPLATES)).float().mean(0))
        return torch.stack(found)

    def learned_pair(self, text: TextEncoder) -> Tensor:
        """Encode the learned prompts [2, E], not unit: ``n_ctx`` vectors and a full stop."""
        tokens = text.tokenize([prompt_text(self.config.n_ctx)])
        context = torch.stack([self.normal_tokens, self.abnormal_tokens])
        return text.encode_tokens(tokens, context)[:, 0].float()

    # ------------------------------------------------------------------------- adapters
    def textual(self, features: ImageFeatures, learned: Tensor) -> tuple[Tensor, Tensor]:
        """Return pair logits of the image [B, 2] and of the last layer's patches [B, 2, h, w]
        against the learned prompts."""
        patches = features[self.taps[-1]].float()
        return self._against(features[self.image_tap].float(), patches, learned, features.grid)

    def visual(self, features: ImageFeatures, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The same of moved features against the fixed prompts; the class token moves along with
        the patches, and so counts in the statistics of training."""
        image = self.visual_global(features[self.image_tap].float())
        patches = self.visual_local(features[self.taps[-1]].float())
        return self._against(image, patches, fixed, features.grid)

    def _against(
        self, image: Tensor, tokens: Tensor, pair: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        scale = 1 / self.config.temperature
        logits = scale * unit(image) @ unit(pair).T
        return logits, dense.similarity(tokens[:, 1:], pair, grid, scale)

    def compared(
        self, layer: int, query: Tensor, bank: MemoryBank, grid: tuple[int, int]
    ) -> Compared:
        """Compare patches [B, L, E] of a layer with those of references."""
        q = unit(query)
        found = bank.neighbours(q)
        nearest = bank.features[found.row[..., 0]]
        return self._heads(layer, q, nearest, 2 * found.distance[..., 0], grid)

    def _heads(
        self, layer: int, q: Tensor, nearest: Tensor, distance: Tensor, grid: tuple[int, int]
    ) -> Compared:
        x = (q - nearest).abs()
        x = x + q if self.config.context else x
        local, whole = self.query(layer, x.mT.unflatten(-1, grid))
        return Compared(distance.unflatten(-1, grid), local, whole)

    def compared_in_training(
        self, layer: int, query: ImageFeatures, partners: ImageFeatures
    ) -> Compared:
        """Compare every image with a normal one of its own."""
        tap = self.taps[layer]
        q, n = unit(query.patches(tap)), unit(partners.patches(tap))
        cosine, index = (q @ n.mT).max(-1)
        nearest = n.gather(1, index[..., None].expand(-1, -1, n.shape[-1]))
        return self._heads(layer, q, nearest, 1 - cosine, query.grid)

    # --------------------------------------------------------------------------- scores
    def score(self, features: ImageFeatures, context: ScoreContext[Pairs]) -> Scores:
        """Maps: probabilities of the visual and the textual adapter; with references also those of
        the prompt-query adapter and the distances per layer.  ``parts``: the image scores."""
        pairs = next(iter(context.text.values()))  # the same for every category
        images, stages = [], []
        for logits, patches in (
            self.visual(features, pairs.fixed),
            self.textual(features, pairs.learned),
        ):
            images.append(logits.softmax(1)[:, 1])
            stages.append(dense.pair_probability(patches))
        if self.shots:
            whole, local, align = self._referred(features, context)
            images.append(whole)
            stages += [local, *align]
        parts = torch.stack(images, 1)
        moved = unit(self.visual_global(features[self.image_tap].float()))  # for the reasons
        return Scores(stages, parts.mean(1), "values", parts={"images": parts, "moved": moved})

    def _referred(
        self, features: ImageFeatures, context: ScoreContext[Pairs]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the prompt-query adapter's scores [B] and probabilities [B, 4h, 4w], means over
        the layers, and the distances of every layer [B, h, w]."""
        keys = [c.key for c in context.categories]
        by_image: list[list[Compared]] = [[] for _ in keys]
        for key in dict.fromkeys(keys):
            rows = [i for i, other in enumerate(keys) if other == key]
            for layer, tap in enumerate(self.taps):
                bank = bank_of(context.references[key], tap, patches=True)
                found = self.compared(layer, features.patches(tap)[rows], bank, features.grid)
                for place, row in enumerate(rows):
                    one = (x[place] for x in (found.align, found.local, found.whole))
                    by_image[row].append(Compared(*one))
        layers = [list(one) for one in zip(*by_image)]
        whole = [torch.stack([c.whole for c in layer]).softmax(1)[:, 1] for layer in layers]
        local = [dense.pair_probability(torch.stack([c.local for c in layer])) for layer in layers]
        align = [torch.stack([c.align for c in layer]) for layer in layers]
        return dense.joined(whole, "mean"), dense.joined(local, "mean"), align

    def map_spec(self) -> MapSpec:
        """Enlarge, fuse at the output size, smooth: the adapters by ``fusion``, the distances by
        their harmonic mean, and these two by theirs."""
        sigma, fusion = self.config.post.sigma, FUSIONS[self.config.fusion]
        blur = {"blur": "gaussian" if sigma else "none", "sigma": sigma}
        if not self.shots:
            return MapSpec(fuse=fusion, **blur)  # type: ignore[arg-type]
        groups: tuple[tuple[Fuse, int], ...] = ((fusion, 3), ("harmonic", len(self.taps)))
        return MapSpec(fuse="harmonic", groups=groups, **blur)  # type: ignore[arg-type]

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the adapters' scores joined with the map's maximum."""
        fusion = FUSIONS[self.config.fusion]
        images = list(scores.parts["images"].unbind(1))
        largest = built.final.amax(dim=(-2, -1))
        if not self.shots:
            return dense.joined([*images, largest], fusion)
        return dense.joined([dense.joined(images, fusion), largest], "harmonic")

    def explain(self, scored: Scored[Pairs], k: int = 5) -> list[list[Explanation]]:
        """Rank the states of the fixed prompts by their cosine with the moved image vector."""
        pairs = next(iter(scored.context.text.values()))
        note = f"averaged over {len(OWN_TEMPLATES)} sentences"
        return [rank_phrases(one, pairs.ensemble, k, note) for one in scored.scores.parts["moved"]]

    # ------------------------------------------------------------------------- training
    @property
    def needs_partners(self) -> bool:
        return True

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[Pairs]
    ) -> dict[str, Tensor]:
        """Return ``local`` (focal and both Dice losses) and ``global`` (cross-entropy), summed over
        the visual, the textual and every layer of the prompt-query adapter; and ``total``."""
        text = context.text_encoder
        partners = context.paired
        assert partners is not None
        outputs = [
            self.visual(features, self.fixed_pair(text)),
            self.textual(features, self.learned_pair(text)),
        ]
        for layer in range(len(self.taps)):
            found = self.compared_in_training(layer, features, partners)
            outputs.append((found.whole, found.local))
        masks = batch.masks[:, 0]
        terms = {
            name: masks.new_zeros(())
            for name in ("local", "global", "focal", "dice_abnormal", "dice_normal")
        }
        for image, patches in outputs:
            terms["global"] = terms["global"] + cross_entropy(image, batch.labels.long())
            enlarged = dense.upsample(patches.softmax(1), masks.shape[-1], False)
            for name, value in pixel_terms(enlarged, masks).items():
                terms[name] = terms[name] + value
                terms["local"] = terms["local"] + value
        return {"total": terms["local"] + terms["global"], **terms}

    def phases(self) -> list[TrainPhase]:
        """One phase: all adapters are stepped together, each by its own losses."""
        train = self.config.train
        return [
            TrainPhase(
                name="adapters",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("normal_tokens", "abnormal_tokens", "visual_", "query."),
                optimizer=adam(train.lr, train.betas),
            )
        ]
