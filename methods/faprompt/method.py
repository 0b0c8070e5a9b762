"""FAPrompt (Zhu et al.): fine-grained abnormality prompts, adapted to each image.

Read with the paper: compound abnormality prompts (section 3.3, ``prompts.py``), the
data-dependent abnormality prior (section 3.4), training and inference (section 3.5).  The
prompts name no category, so the first text pass is encoded once per run; the second one, which
carries an image's prior, is encoded for a whole batch in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zsad import maps
from zsad.components import losses
from zsad.components.optimizers import adam
from zsad.components.prompt_learning import unit
from zsad.errors import RequestError
from zsad.method import ImportedCheckpoint, Method, TrainPhase
from zsad.methods.faprompt import convert
from zsad.methods.faprompt.config import Config
from zsad.methods.faprompt.explain import explain, prompt_maps
from zsad.methods.faprompt.prompts import CompoundPrompts, FirstPass, orthogonality, prototype
from zsad.types import (
    BackboneInfo,
    Category,
    EncoderVariant,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    MapSpec,
    PromptView,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder


class Passes(NamedTuple):
    """Everything that the two passes over a batch produce."""

    plain: Tensor  # [B, 2, h, w], pair logits of the first pass
    adapted: Tensor  # [B, 2, h, w], pair logits with the prior
    image: Tensor  # [B, 2], image logits with the prior
    top_index: Tensor  # [B, M], patches that feed the prior, raster order
    prior: Tensor | None  # [B, W]; None without DAP
    prompts: Tensor  # [B, T, E], the abnormal prompts behind ``adapted``, not unit


class FAPrompt(Method[Config, FirstPass]):
    """Compound abnormality prompts with a data-dependent prior."""

    name = "faprompt"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.prompts = CompoundPrompts(config, backbone.text_width)
        if config.dap.enabled:
            self.prior_net = prior_network(config, backbone)
        self.patch_tap = Tap("vv_proj", backbone.depth, backbone.vv_start(config.vv_blocks))
        self.image_tap = Tap(config.image_token)

    # ---------------------------------------------------------------- features and text
    def feature_request(self) -> FeatureRequest:
        variant = EncoderVariant(pos_interp=self.config.pos_interp, decoding=self.config.decoding)
        return FeatureRequest.of(self.image_tap, self.patch_tap, variant=variant)

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, FirstPass]:
        with torch.no_grad():
            first = self.prompts.first_pass(text)
        return {category.key: first for category in categories}

    # ---------------------------------------------- the prior (section 3.4) and passes
    def select(self, patches: Tensor, probability: Tensor) -> Tensor:
        """Return the indices [B, M] of the patches that feed the prior.

        ``topk=paper``: the most abnormal ones, highest first.  ``topk=released``: always the
        first M patches in raster order (the released loop uses its counter as patch index).
        """
        count = self.config.dap.top_k
        if patches.shape[1] < count:
            raise RequestError(
                f"faprompt.dap.top_k={count} exceeds the {patches.shape[1]} patches of an image; "
                "lower it or use larger images"
            )
        if self.config.topk == "released":
            return torch.arange(count, device=patches.device).expand(len(patches), -1)
        return probability.flatten(1).topk(count, dim=1).indices

    def run_passes(self, features: ImageFeatures, first: FirstPass, text: TextEncoder) -> Passes:
        """Score a batch without, then with each image's abnormality prior (Eq. 3, 4, 6)."""
        patches = unit(features.patches(self.patch_tap))  # [B, L, E]
        tokens = unit(features[self.image_tap])  # [B, E]
        scale, batch = 1 / self.config.temperature, len(patches)
        plain = maps.similarity(
            patches, torch.stack([first.normal, first.abnormal]), features.grid, scale
        )
        top = self.select(patches, maps.pair_probability(plain.detach()))
        prior, prompts, abnormal, adapted = None, first.prompts[None], first.abnormal[None], plain
        if self.config.dap.enabled:
            chosen = patches.gather(1, top[..., None].expand(-1, -1, patches.shape[-1]))
            prior = self.prior_net(chosen.flatten(1))  # [B, W]
            prompts = self.prompts.second_pass(text, prior)  # [B, T, E]
            abnormal = prototype(prompts)  # [B, E]
        pair = torch.stack([first.normal.expand(batch, -1), abnormal.expand(batch, -1)], dim=1)
        if self.config.dap.enabled:
            adapted = maps.similarity(patches, pair, features.grid, scale)
        image = torch.einsum("be,bce->bc", tokens, pair) * scale
        return Passes(plain, adapted, image, top, prior, prompts.expand(batch, -1, -1))

    def mixed_score(self, passes: Passes) -> Tensor:
        """Return the image score [B] in [0, 1]: half text probability, half map maxima on the
        patch grid (Eq. 8, 9)."""
        text_probability = passes.image.softmax(dim=1)[:, 1]
        first, second = (
            maps.pair_probability(logits).flatten(1).amax(dim=1)
            for logits in (passes.plain, passes.adapted)
        )
        plain_weight, adapted_weight = self.config.score.max_weights
        return 0.5 * (text_probability + plain_weight * first + adapted_weight * second)

    # ----------------------------------------------------------------------- inference
    def score(self, features: ImageFeatures, context: ScoreContext[FirstPass]) -> Scores:
        first = next(iter(context.text.values()))  # the same for every category
        passes = self.run_passes(features, first, context.text_encoder)
        return Scores(
            [passes.plain, passes.adapted],
            self.mixed_score(passes),
            parts={
                "text_probability": passes.image.softmax(dim=1)[:, 1],
                "top_index": passes.top_index,
                "prior": passes.prior,
                "prompts": passes.prompts,
            },
        )

    def map_spec(self) -> MapSpec:
        """Eq. 12: the mean of (1 - M_n + M_a) / 2 = M_a over both passes, then smoothed."""
        sigma = self.config.post.sigma
        return MapSpec(
            order="softmax_then_upsample",
            align_corners=False,
            fuse="mean",
            blur="gaussian" if sigma > 0 else "none",
            sigma=sigma,
        )

    def explain(self, scored: Scored[FirstPass], k: int = 5) -> list[list[Explanation]]:
        """Name the prompts that answer most to the selected patches; see ``explain.py``."""
        patches = unit(scored.features.patches(self.patch_tap))
        return explain(patches, scored, k)

    def prompt_views(self, scored: Scored[FirstPass]) -> list[PromptView]:
        """The normal prompt and the T abnormal ones of section 3.3, without an image's prior."""
        first = next(iter(scored.context.text.values()))
        features, count = scored.features, len(first.prompts)
        patches = unit(features.patches(self.patch_tap))
        planes = prompt_maps(patches, first, features.grid, self.config.temperature)
        embeddings = unit(torch.cat([first.normal[None], first.prompts]))
        abnormal = torch.arange(count + 1, device=embeddings.device) > 0
        names = ["normal prompt", *(f"abnormality prompt {i + 1}" for i in range(count))]
        kept = torch.ones_like(abnormal)
        tokens = unit(features[self.image_tap])
        return [
            PromptView(names, abnormal, embeddings, token, kept, own)
            for token, own in zip(tokens, planes)
        ]

    # ------------------------------------------------------------------------ training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[FirstPass]
    ) -> dict[str, Tensor]:
        """Return the loss terms of one batch (Eq. 2, 5, 7, 10, 11).

        ``loss``: pixel terms of both passes, weighted by ``loss.weights``; the six single terms
        follow as ``focal_plain`` ... ``dice_normal_adapted``.  ``image_loss``: cross-entropy of
        the image logits (``loss.image=released`` only).  ``image_loss2``: focal loss on the image
        score.  ``loss_ab``: orthogonality, unweighted.  ``loss_bias``: prior loss, unweighted.
        ``total``: their weighted sum.
        """
        config = self.config
        text = context.text_encoder
        first = self.prompts.first_pass(text)
        passes = self.run_passes(features, first, text)
        masks, labels = batch.masks[:, 0], batch.labels.long()

        terms: dict[str, Tensor] = {}
        local = masks.new_zeros(())
        logits = {"plain": passes.plain, "adapted": passes.adapted}
        if not config.dap.enabled:
            del logits["adapted"]  # the same map: it counts once
        for (name, value), weight in zip(logits.items(), config.loss.weights):
            probability = maps_at(value, masks.shape[-1])
            single = losses.pixel_terms(probability, masks)
            local = local + weight * sum(single.values(), masks.new_zeros(()))
            terms |= {f"{term}_{name}": loss for term, loss in single.items()}

        image = self.image_losses(passes, labels)
        orthogonal = orthogonality(first.prompts)
        prior = (
            prior_loss(passes.prior, labels) if passes.prior is not None else local.new_zeros(())
        )
        total = local + sum(image.values(), local.new_zeros(()))
        total = total + config.cap.orth_weight * orthogonal + config.dap.prior_weight * prior
        return {
            "total": total,
            "loss": local,
            **image,
            "loss_ab": orthogonal,
            "loss_bias": prior,
            **terms,
        }

    def image_losses(self, passes: Passes, labels: Tensor) -> dict[str, Tensor]:
        """Return the image-level terms (Eq. 10, or the released pair)."""
        score = self.mixed_score(passes)
        if self.config.loss.image == "released":
            return {
                "image_loss": cross_entropy(passes.image, labels),
                # The released code takes the score, already in [0, 1], for a logit.
                "image_loss2": losses.binary_focal_on_logits(score, labels),
            }
        return {"image_loss2": losses.binary_focal(score, labels)}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="prompts",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("prompts", "prior_net"),
                optimizer=adam(train.lr, train.betas),
            )
        ]

    # --------------------------------------------------------------- official weights
    @classmethod
    def import_official(
        cls, state: object, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        return convert.import_official(state, backbone)


def prior_network(config: Config, backbone: BackboneInfo) -> nn.Sequential:
    """Build psi: M concatenated patch tokens [M * E] -> prior [W]."""
    fan_in = config.dap.top_k * backbone.embed
    hidden = config.dap.hidden or max(1, fan_in // 16)
    return nn.Sequential(
        nn.Linear(fan_in, hidden), nn.ReLU(), nn.Linear(hidden, backbone.text_width)
    )


def prior_loss(prior: Tensor, labels: Tensor) -> Tensor:
    """Return the squared prior [B, W] of the normal images (``labels`` [B] = 0): a scalar (Eq. 5).

    Sum over images of the *mean* over the W entries, as the released code has it.
    """
    return (prior.square().mean(dim=1) * (labels == 0)).sum()


def maps_at(logits: Tensor, size: int) -> Tensor:
    """Return pair probabilities enlarged to ``size`` pixels: [B, 2, h, w] -> [B, 2, H, W]."""
    return maps.upsample(logits.softmax(dim=1), size, False)
