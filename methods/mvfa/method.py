"""MVFA-AD (Huang et al., CVPR 2024), zero-shot, in the order of the paper.

After each of four stages two bottleneck adapters (segmentation, detection) read the encoder's
stream and are mixed back into it; what they hold in their bottleneck is compared with the text.
Blocks up to the first stage are the common ones and shared with all other methods; those above it
are run again on the changed stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad import maps as dense
from zsad.components.optimizers import adam
from zsad.components.prompt_ensemble import EnsembleFeatures, rank_phrases
from zsad.components.released_state import LayeredRelease
from zsad.components.stage_method import StageMethod
from zsad.components.templates import SCENE_TEMPLATES
from zsad.components.windows import window_region
from zsad.method import TrainPhase
from zsad.methods.mvfa import convert, prompts
from zsad.methods.mvfa.config import Config
from zsad.types import (
    BackboneInfo,
    Category,
    Explanation,
    FeatureRequest,
    ImageFeatures,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

TOP_SHARE = 0.01  # of the patches: those that an explanation speaks of


class Adapter(nn.Module):
    """Two bias-free linear layers with leaky ReLUs: D -> E -> D."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False), nn.LeakyReLU())

    def down(self, x: Tensor, learn: bool = True) -> Tensor:
        """Return the bottleneck [B, 1+L, E] of a stream [B, 1+L, D].  Without ``learn`` gradients
        reach ``x`` and not the weights."""
        return _run(self.fc1, x, learn)

    def up(self, inner: Tensor, learn: bool = True) -> Tensor:
        """Return what a bottleneck [B, 1+L, E] adds to the stream, [B, 1+L, D]."""
        return _run(self.fc2, inner, learn)


def _run(layer: nn.Module, x: Tensor, learn: bool) -> Tensor:
    held = {k: v if learn else v.detach() for k, v in layer.named_parameters()}
    out: Tensor = torch.func.functional_call(layer, held, x)
    return out


@dataclass
class Adapted:
    """Per stage what the bottlenecks of both adapters hold, without class token, [B, L, E]."""

    seg: list[Tensor]
    det: list[Tensor]


class MVFA(StageMethod[Config], LayeredRelease[Config, EnsembleFeatures]):
    """Multi-level adapters inside the image encoder."""

    name: ClassVar[str] = "mvfa"
    from_release = staticmethod(convert.import_official)
    templates: ClassVar[Sequence[str]] = SCENE_TEMPLATES

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        sizes = (backbone.width, backbone.embed)
        self.seg_adapters = nn.ModuleList([Adapter(*sizes) for _ in self.layers])
        self.det_adapters = nn.ModuleList([Adapter(*sizes) for _ in self.layers])

    @property
    def entry(self) -> Tap:
        """Where this method leaves the common stream: the output of its first stage."""
        return Tap("tokens", self.layers[0])

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(self.entry, variant=self.config.encoder)

    def word(self, category: Category) -> str:
        """Return the name of a category that the prompts say."""
        return prompts.word(category, self.config.names)

    # ------------------------------------------------------------- the adapted stream
    def adapted(
        self,
        features: ImageFeatures,
        context: ScoreContext[EnsembleFeatures],
        learn_seg: bool = True,
    ) -> Adapted:
        """Run the blocks above the first stage with the adapters in between.

        After stage i: x <- (1 - 2 mix) x + mix seg_i(x) + mix det_i(x).  Nothing reads the stream
        after the last stage, so there only the bottlenecks are computed.  Without ``learn_seg`` no
        gradient reaches the weights of the segmentation adapters.
        """
        out = Adapted([], [])

        def mix(layer: int, x: Tensor) -> Tensor:
            if layer not in self.layers:
                return x
            stage, share = self.layers.index(layer), self.config.mix
            seg, det = self.seg_adapters[stage], self.det_adapters[stage]
            assert isinstance(seg, Adapter)
            assert isinstance(det, Adapter)
            inner = [seg.down(x.float(), learn_seg), det.down(x.float())]
            for kept, bottleneck in zip((out.seg, out.det), inner):
                kept.append(bottleneck[:, 1:])
            if layer == self.layers[-1]:
                return x
            both = seg.up(inner[0], learn_seg) + det.up(inner[1])
            return (1 - 2 * share) * x + (share * both).to(x.dtype)

        x = mix(self.layers[0], features[self.entry])
        context.image_encoder.resume(x, self.layers[0] + 1, mix, last_block=self.layers[-1])
        return out

    # -------------------------------------------------------------------------- scoring
    def image_probabilities(self, logits: Sequence[Tensor]) -> Tensor:
        """Return per stage the mean anomaly probability of the patches: [K, B]."""
        return torch.stack([dense.pair_probability(x).mean((-2, -1)) for x in logits])

    def score(self, features: ImageFeatures, context: ScoreContext[EnsembleFeatures]) -> Scores:
        """Image: probability [B], mean over patches, mean or sum over stages; maps: pair logits per
        stage."""
        pair = torch.stack([context.text[c.key].pair for c in context.categories])
        stream = self.adapted(features, context)
        image = self.image_probabilities(self.stage_logits(stream.det, pair, features.grid))
        maps = self.stage_logits(stream.seg, pair, features.grid)
        joined = image.mean(0) if self.config.image_fuse == "mean" else image.sum(0)
        return Scores(maps, joined, parts=most_anomalous(maps, stream.seg))

    # ------------------------------------------------------------------- explanation
    def explain(self, scored: Scored[EnsembleFeatures], k: int = 5) -> list[list[Explanation]]:
        """Rank the state phrases by their cosine with the adapted features of the image's most
        anomalous patches; the region is the first of them."""
        features, scores, context = scored.features, scored.scores, scored.context
        top, units = scores.parts["top"], scores.parts["units"]
        note = (
            f"compared with the {top.shape[1]} most anomalous patches, of which the region is the "
        )
        note += f"first; averaged over {len(SCENE_TEMPLATES)} sentences"
        found = [
            rank_phrases(unit, context.text[c.key], k, note)
            for unit, c in zip(units, context.categories)
        ]
        for reasons, first in zip(found, top[:, 0].tolist()):
            for reason in reasons:
                reason.region = window_region(first, features.grid, 1)
        return found

    # ------------------------------------------------------------------------- training
    @property
    def needs_masks(self) -> bool:
        """The image term learns without."""
        return False

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext[EnsembleFeatures]
    ) -> dict[str, Tensor]:
        """Return ``focal``, ``dice`` (of the anomalous map) and ``image``, summed over stages.

        The pixel terms are those of the images whose mask is known.  Where none is, they are
        absent, and the segmentation adapters do not learn (as released).
        """
        pair = self.training_pair(context).to(batch.labels.device)
        known = batch.has_mask
        pixels = known is None or bool(known.any())
        stream = self.adapted(features, context, learn_seg=pixels)
        found = self.image_probabilities(self.stage_logits(stream.det, pair, features.grid))
        labels = batch.labels.to(found).expand_as(found)
        if self.config.loss.image == "released":
            image = F.binary_cross_entropy_with_logits(found, labels, reduction="none")
        else:
            image = F.binary_cross_entropy(found.clamp(1e-6, 1 - 1e-6), labels, reduction="none")
        terms = {"image": image.mean(1).sum()}
        if pixels:
            logits, masks = self.stage_logits(stream.seg, pair, features.grid), batch.masks
            if known is not None and not bool(known.all()):
                logits, masks = [stage[known] for stage in logits], masks[known]
            terms |= self.stage_losses(logits, masks)
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="adapters",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("seg_adapters.", "det_adapters."),
                optimizer=adam(train.lr, train.betas),
            )
        ]


def most_anomalous(maps: Sequence[Tensor], patches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return ``top`` [B, n], the most anomalous patches of every image by the mean of the stages'
    ``maps`` [B, 2, h, w], and ``units`` [B, E], the unit mean of the stages' features there."""
    flat = torch.stack([dense.pair_probability(m) for m in maps]).mean(0).flatten(1)  # [B, L]
    top = flat.topk(max(1, round(TOP_SHARE * flat.shape[1])), dim=1).indices
    rows = torch.arange(len(top), device=top.device)[:, None]
    chosen = [F.normalize(stage[rows, top], dim=-1) for stage in patches]
    return {"top": top, "units": F.normalize(torch.stack(chosen).mean((0, 2)), dim=-1)}
