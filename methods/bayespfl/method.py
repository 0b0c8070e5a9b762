"""Bayes-PFL (Qu et al., CVPR 2025), in the order of the paper.

A bank of prompt pairs is a distribution: a latent that follows the image shifts their context
vectors, two others shift the state vectors of the two labels.  Each latent is a Gaussian that flows
through planar steps.  R draws give R x T text pairs per image; they look at the patches (residual
cross-attention), and maps and scores are means over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from zsad import maps as dense
from zsad.components.prompt_learning import prompt_text, unit
from zsad.components.released_state import LayeredRelease
from zsad.data.mixed_training import InspectedTraining
from zsad.method import TrainPhase, chosen_blocks, stretched
from zsad.methods.bayespfl import convert, losses, prompts
from zsad.methods.bayespfl.config import Config
from zsad.methods.bayespfl.draws import Draws
from zsad.methods.bayespfl.modules import (
    RCA,
    ContextFlow,
    Encoder,
    PatchFusion,
    StateFlow,
    linear,
)
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
SHARE = 2000 / 518**2  # of the pixels that are part of the image score, in the released code
TEMPERATURE = math.log(1 / 0.07)  # start of both learned temperatures
STATE_MEAN, STATE_STD = (
    0.5,
    0.02,
)  # start of the state vectors: +0.5 normal, -0.5 abnormal
PROMPTS, FLOWS, HEAD = ("prompt_",), ("flow_",), ("map_text.", "map_image.", "fusion.")


@dataclass(frozen=True)
class Words:
    """What a category's prompts end in: word embeddings [s, W], the end of text the last one."""

    embedded: Tensor


@dataclass(frozen=True)
class Latents:
    """Latents after their flows: ``context`` [B, R, W], ``states`` [2, R, W]; ``divergence``: the
    sum of the three, of the noise that they were drawn with."""

    context: Tensor
    states: Tensor
    divergence: Tensor


class BayesPFL(InspectedTraining[Config, Words], LayeredRelease[Config, Words]):
    """Prompts drawn from a learned distribution."""

    name: ClassVar[str] = "bayespfl"
    from_release = staticmethod(convert.import_official)

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        embed, width, text = backbone.embed, backbone.width, backbone.text_width
        self.taps = [
            Tap("tokens", layer) for layer in chosen_blocks(self.name, config.layers, backbone)
        ]
        layers, hidden = len(self.taps), width // 2
        self.prompt_context = _vectors(0.0, config.bank, config.context_tokens, text)
        self.prompt_normal = _vectors(STATE_MEAN, config.bank, config.state_tokens, text)
        self.prompt_abnormal = _vectors(-STATE_MEAN, config.bank, config.state_tokens, text)
        self.context_encoder = Encoder(embed, hidden, text)
        self.state_encoder = Encoder(text, hidden, text)
        self.flow_context = ContextFlow(embed, text, config.flows)
        self.flow_normal = StateFlow(text, config.flows)
        self.flow_abnormal = StateFlow(text, config.flows)
        self.rca = RCA(layers, width, embed, config.heads)
        self.fusion = PatchFusion(layers, width, embed)
        self.map_text = linear(embed, embed)
        self.map_image = linear(embed, embed)
        self.temperature_pixel = nn.Parameter(torch.tensor(TEMPERATURE))
        self.temperature_image = nn.Parameter(torch.tensor(TEMPERATURE))
        self.draws = Draws(config.sampling, text)

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, *self.taps, variant=self.config.encoder)

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, Words]:
        """Embed the name of every category; the vectors before it follow the image."""
        return {c.key: self.words(c, text) for c in categories}

    def words(self, category: Category, text: TextEncoder) -> Words:
        """Return what the prompts of a category end in."""
        learned = self.config.context_tokens + self.config.state_tokens
        said = prompts.word(category, self.config.names)
        tokens = text.tokenize([prompt_text(learned, said).removesuffix(".")])
        return Words(text.embed_tokens(tokens)[0, 1 + learned :])

    # --------------------------------------------------------------- the prompt distribution
    def latents(self, image: Tensor, context: Tensor, states: Tensor) -> Latents:
        """Draw the latents of image vectors [B, E] (raw) with noise [B, R, W] and [2, R, W]."""
        start = self.context_encoder(image)
        given = type(start)(start.mean[:, None], start.s[:, None])
        z, volume = self.flow_context(image, given.at(context))
        divergence = _divergence(given.log_density(context), z, volume).mean()
        found = []
        for flow, noise in zip((self.flow_normal, self.flow_abnormal), states):
            own = self.state_encoder(flow.state)
            moved, size = flow(own.at(noise))
            if self.config.loss.state_det == "batch":
                size = size / len(image)
            divergence = divergence + _divergence(own.log_density(noise), moved, size).mean()
            found.append(moved)
        return Latents(z, torch.stack(found), divergence)

    def text_pairs(
        self, latents: Latents, context: ScoreContext[Words], text: TextEncoder
    ) -> Tensor:
        """Encode the prompts of the images: unit rows [B, 2, R T, E], sample-major.

        A prompt is [start][context vectors][state vectors][name][end]; the normal and the abnormal
        one of a draw share [start][context vectors].
        """
        draws, entries = latents.context.shape[1], self.config.bank
        vectors = self.prompt_context + latents.context[:, :, None, None]  # [B, R, T, P, W]
        # [2, R, T, Q, W]
        states = torch.stack([self.prompt_normal, self.prompt_abnormal])[:, None]
        states = states + latents.states[:, :, None, None]
        start = text.embed_tokens(text.tokenize([""]))[:, 0]  # [1, W]
        keys = [c.key for c in context.categories]
        found: list[Tensor] = [vectors] * len(keys)  # one entry per image
        for key in dict.fromkeys(keys):
            rows = [i for i, other in enumerate(keys) if other == key]
            words = self._words_of(context, rows[0], text).embedded
            own = vectors[rows].flatten(0, 2)  # [N, P, W]
            prefix = torch.cat([start.expand(len(own), 1, -1), own], 1)
            ends = words.expand(2, draws, entries, -1, -1)
            suffix = torch.cat([states, ends], 3).permute(1, 2, 0, 3, 4).flatten(0, 1)
            suffix = suffix.repeat(len(rows), 1, 1, 1)  # [N, 2, s, W]
            end = prefix.shape[1] + suffix.shape[2] - 1
            pairs = unit(text.encode_prefixed(prefix, suffix, [end, end]))  # [N, 2, E]
            for i, row in zip(rows, pairs.unflatten(0, (len(rows), -1))):
                found[i] = row.transpose(0, 1)
        return torch.stack(found)

    def _words_of(self, context: ScoreContext[Words], row: int, text: TextEncoder) -> Words:
        category = context.categories[row]
        known = context.text.get(category.key)
        return self.words(category, text) if known is None else known

    # ------------------------------------------------------------------------- scoring
    def image_logits(self, features: ImageFeatures, pairs: Tensor, head: str) -> Tensor:
        """Return pair logits [B, 2, N] of the image for unit text [B, 2, N, E]."""
        image = features[CLS].float()
        if head == "stage2":
            patches = [features.patches(tap).float() for tap in self.taps]
            image = self.map_image(image + self.fusion(patches))
        text = unit(self.map_text(pairs))
        scale = self.temperature_image.exp()
        return scale * torch.einsum("bpne,be->bpn", text, unit(image))

    def pixel_logits(self, features: ImageFeatures, pairs: Tensor) -> list[Tensor]:
        """Return the logits [B, 2, N, h, w] of every layer for unit text [B, 2, N, E]."""
        scale = self.temperature_pixel.exp()
        found = []
        for layer, tap in enumerate(self.taps):
            seen, rows = self.rca(layer, pairs.flatten(1, 2), features.patches(tap).float())
            logits = scale * (rows @ seen.mT)  # [B, 2 N, L]
            found.append(logits.unflatten(1, (2, -1)).unflatten(-1, features.grid))
        return found

    def score(self, features: ImageFeatures, context: ScoreContext[Words]) -> Scores:
        """Maps: the logits of every pair and layer; image: probability [B] of the image head."""
        image = features[CLS].float()
        places, carry = self._places(context)
        names = list(context.uids) or [str(i) for i in range(len(image))]
        latents = self.latents(
            image,
            self.draws.contexts(names, places).to(image),
            self.draws.states().to(image),
        )
        pairs = self.text_pairs(latents, context, context.text_encoder)
        logits = self.image_logits(features, pairs, self.config.image.head)
        probability = logits.softmax(1)[:, 1].mean(-1)
        stages = [
            layer[:, :, i]
            for layer in self.pixel_logits(features, pairs)
            for i in range(pairs.shape[2])
        ]
        small = [prompts.is_small(c) for c in context.categories]
        shares = [self._map_share(c) for c in context.categories]
        return Scores(
            stages,
            probability,
            parts={"small": torch.tensor(small, device=image.device)},
            info={
                "probability": probability,
                "map_share": torch.tensor(shares, device=image.device),
            },
            carry=carry,
        )

    def _map_share(self, category: Category) -> float:
        """The map's part of the image score; by the released code some sets have none."""
        released = self.config.names == "key"
        return self.config.image.map_share if not released or prompts.has_map(category) else 0.0

    def _places(self, context: ScoreContext[Words]) -> tuple[list[int], dict[str, int]]:
        """The place of each image in the order of its category, and what the next one needs."""
        if self.config.sampling.noise != "released":
            return [], {}
        if context.population_uids:
            order = {uid: i for i, uid in enumerate(context.population_uids)}
            return [order[uid] for uid in context.uids], {}
        seen = dict(context.carry)
        places = []
        for category in context.categories:
            places.append(seen.get(category.key, 0))
            seen[category.key] = places[-1] + 1
        return places, {c.key: seen[c.key] for c in context.categories}

    @property
    def carries(self) -> bool:
        """With one stream of noise, an image's depends on its place."""
        return self.config.sampling.noise == "released" and not self.stretches

    def map_spec(self) -> MapSpec:
        """Enlarge the logits with aligned corners, softmax in each pair, mean of all, smooth."""
        sigma = self.config.post.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
            keep="fused",
        )

    def image_score(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the probability, mixed with the mean of the largest pixels before smoothing."""
        share = scores.info["map_share"]
        return (1 - share) * scores.image + share * self.largest(scores, built)

    def largest(self, scores: Scores, built: BuiltMaps) -> Tensor:
        """Return the mean of the largest pixels of the unsmoothed maps: [B]."""
        assert built.fused is not None
        flat = built.fused.flatten(1)
        pixels, few = self.config.image.pixels, self.config.image.small_pixels
        count = min(pixels or max(1, round(SHARE * flat.shape[1])), flat.shape[1])
        top = flat.topk(count).values
        if not few:
            return top.mean(1)
        return torch.where(scores.parts["small"], top[:, :few].mean(1), top.mean(1))

    @property
    def stretches(self) -> bool:
        return self.config.stretch

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Stretch both parts of the scores of a category to [0, 1]."""
        probability, share = info["probability"], info["map_share"]
        if not bool(share.any()):
            return scores
        largest = (scores - (1 - share) * probability) / share
        return (1 - share) * stretched(probability, probability) + share * stretched(
            largest, largest
        )

    # ------------------------------------------------------------------------ training
    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[Words]
    ) -> dict[str, Tensor]:
        """Return the loss terms of one random entry of the bank, with one draw.

        Phase ``prompts``: ``class`` + ``focal`` + ``dice`` + ``divergence`` (weighted) +
        ``orthogonality`` (of all entries); phase ``image``: ``class`` alone, of the image head.
        """
        image = features[CLS].float()
        drawn = self.draws.in_training(len(image), self.config.bank)
        latents = self.latents(
            image, drawn.context[:, None].to(image), drawn.states[:, None].to(image)
        )
        pairs = self.text_pairs(latents, context, context.text_encoder)  # [B, 2, T, E]
        one = pairs[:, :, drawn.entry : drawn.entry + 1]
        labels = batch.labels.long()
        if self.phase == "image":
            found = cross_entropy(self.image_logits(features, one, "stage2")[..., 0], labels)
            return {"total": found, "class": found}
        masks = batch.masks[:, 0]
        terms = {
            "class": cross_entropy(self.image_logits(features, one, "stage1")[..., 0], labels),
            "focal": masks.new_zeros(()),
            "dice": masks.new_zeros(()),
            "divergence": self.config.loss.kl_weight * latents.divergence,
            "orthogonality": losses.orthogonality(pairs[:, 0]) + losses.orthogonality(pairs[:, 1]),
        }
        for layer in self.pixel_logits(features, one):
            enlarged = dense.upsample(
                dense.pair_difference(layer[:, :, 0]), masks.shape[-1], True
            ).sigmoid()
            terms["focal"] = terms["focal"] + losses.focal(enlarged, masks)
            terms["dice"] = terms["dice"] + losses.dice(enlarged, masks)
        return {"total": sum(terms.values(), masks.new_zeros(())), **terms}

    def phases(self) -> list[TrainPhase]:
        """The prompts with all that reads them, then the image head alone."""
        train = self.config.train

        def groups(named: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
            rates: dict[float, list[nn.Parameter]] = {}
            for name, parameter in named.items():
                rate = train.lr
                if name.startswith((*PROMPTS, *FLOWS)):
                    rate = train.prompt_lr
                elif name.startswith("temperature_"):
                    rate = train.temperature_lr
                rates.setdefault(rate, []).append(parameter)
            return torch.optim.Adam(
                [{"params": p, "lr": rate} for rate, p in rates.items()],
                betas=train.betas,
            )

        def warm(step: int, steps: int) -> float:
            total = train.epochs * steps
            ramp = int(train.warmup * total)
            if step < ramp:
                return step / ramp
            return (1 + math.cos(math.pi * (step - ramp) / (total - ramp))) / 2

        every = tuple(dict(self.named_parameters()))
        stages = [
            TrainPhase("prompts", train.epochs, train.batch_size, every, groups, step_rate=warm)
        ]
        if train.image_epochs:
            stages.append(TrainPhase("image", train.image_epochs, train.batch_size, HEAD, groups))
        return stages


def _vectors(mean: float, *shape: int) -> nn.Parameter:
    """Return prompt vectors that begin near ``mean``."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), mean=mean, std=STATE_STD))


def _divergence(log_q: Tensor, z: Tensor, volume: Tensor) -> Tensor:
    """Return log q(z_0) - log p(z_K) - log det of every draw, p = N(0, I), without constants."""
    return log_q + 0.5 * (z**2).sum(-1) - volume
