"""MVFA-AD (Huang et al., CVPR 2024), zero-shot, in the order of the paper.

After each of four stages two bottleneck adapters (segmentation, detection) read the encoder's
stream and are mixed back into it; what they hold in their bottleneck is compared with the text.
Blocks up to the first stage are the common ones and shared with all other methods; those above it
are run again on the changed stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsad import losses as zl
from zsad import maps as dense
from zsad.errors import RequestError
from zsad.method import ImportedCheckpoint, Method, TrainPhase
from zsad.methods.aprilgan.prompts import ANOMALOUS_STATES, NORMAL_STATES, encode_states
from zsad.methods.mvfa import convert
from zsad.methods.mvfa.config import Config
from zsad.methods.winclip.method import StateFeatures
from zsad.methods.winclip.prompts import TEMPLATES
from zsad.types import (
    BackboneInfo,
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


class Adapter(nn.Module):
    """Two bias-free linear layers with leaky ReLUs: D -> E -> D."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bottleneck [B, N, E] and the output [B, N, D]."""
        inner = self.fc1(x)
        return inner, self.fc2(inner)


@dataclass
class Adapted:
    """What the adapted pass leaves: ``final`` [B, N, D], the last block's tokens after mixing, and
    per stage the bottlenecks of both adapters without class token, [B, L, E]."""

    final: Tensor
    seg: list[Tensor]
    det: list[Tensor]


class MVFA(Method):
    """Multi-level adapters inside the image encoder."""

    name: ClassVar[str] = "mvfa"
    config: Config

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.layers = chosen_layers(config, backbone)
        sizes = (backbone.width, backbone.embed)
        self.seg_adapters = nn.ModuleList([Adapter(*sizes) for _ in self.layers])
        self.det_adapters = nn.ModuleList([Adapter(*sizes) for _ in self.layers])
        self._pairs: dict[str, Tensor] = {}  # label embeddings of the training categories

    @property
    def entry(self) -> Tap:
        """Where this method leaves the common stream: the output of its first stage."""
        return Tap("tokens", self.layers[0])

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(self.entry)

    def prepare_text(
        self, categories: Sequence[Category], text: TextEncoder
    ) -> dict[str, StateFeatures]:
        """Encode 7 normal and 5 anomalous states in 22 templates per category."""
        states = (NORMAL_STATES, ANOMALOUS_STATES)
        return {c.key: encode_states(c.class_name, states, TEMPLATES, text) for c in categories}

    # ------------------------------------------------------------- the adapted stream
    def adapted(self, features: ImageFeatures, context: ScoreContext) -> Adapted:
        """Run the blocks above the first stage with the adapters in between.

        After stage i: x <- (1 - 2 mix) x + mix seg_i(x) + mix det_i(x).
        """
        out = Adapted(features[self.entry], [], [])

        def mix(layer: int, x: Tensor) -> Tensor:
            if layer not in self.layers:
                return x
            stage, share = self.layers.index(layer), self.config.mix
            seg, seg_out = self.seg_adapters[stage](x.float())
            det, det_out = self.det_adapters[stage](x.float())
            out.seg.append(seg[:, 1:])
            out.det.append(det[:, 1:])
            return (1 - 2 * share) * x + (share * (seg_out + det_out)).to(x.dtype)

        first = self.layers[0]
        start = mix(first, features[self.entry])
        out.final = context.image_encoder.resume(start, first + 1, mix)
        return out

    # -------------------------------------------------------------------------- scoring
    def logits(
        self, patches: Sequence[Tensor], pair: Tensor, grid: tuple[int, int]
    ) -> list[Tensor]:
        """Return ``scale`` * cosine per stage: K tensors [B, 2, h, w]."""
        return [dense.similarity(p, pair, grid, self.config.scale) for p in patches]

    def image_probabilities(self, logits: Sequence[Tensor]) -> Tensor:
        """Return per stage the mean anomaly probability of the patches: [K, B]."""
        return torch.stack([dense.pair_probability(x).mean((-2, -1)) for x in logits])

    def score(self, features: ImageFeatures, context: ScoreContext) -> Scores:
        """Image: probability [B], mean over patches and stages; maps: pair logits per stage."""
        pair = torch.stack([context.text[c.key].pair for c in context.categories])
        stream = self.adapted(features, context)
        image = self.image_probabilities(self.logits(stream.det, pair, features.grid))
        return Scores(self.logits(stream.seg, pair, features.grid), image.mean(0))

    def map_spec(self) -> MapSpec:
        """Enlarge the logits with aligned corners, softmax, then join the stages."""
        sigma = self.config.sigma
        return MapSpec(
            order="upsample_then_softmax",
            align_corners=True,
            fuse=self.config.fuse,
            blur="gaussian" if sigma else "none",
            sigma=sigma,
        )

    # ------------------------------------------------------------------------- training
    def begin_training(
        self,
        categories: Sequence[Category],
        captions: Mapping[str, Sequence[str]],
        text: TextEncoder,
    ) -> None:
        """Encode the prompts of the training categories once."""
        with torch.no_grad():
            prepared = self.prepare_text(categories, text)
        self._pairs = {key: found.pair for key, found in prepared.items()}

    def training_pair(self, context: ScoreContext) -> Tensor:
        """Return the label embeddings [B, 2, E] of the images of a training batch."""
        new = {c.key: c for c in context.categories if c.key not in self._pairs}
        if new:
            with torch.no_grad():
                prepared = self.prepare_text(list(new.values()), context.text_encoder)
            self._pairs.update({key: found.pair for key, found in prepared.items()})
        return torch.stack([self._pairs[c.key] for c in context.categories])

    def losses(
        self, features: ImageFeatures, batch: TrainBatch, context: ScoreContext
    ) -> dict[str, Tensor]:
        """Return ``focal``, ``dice`` (of the anomalous map) and ``image``, summed over stages."""
        pair = self.training_pair(context).to(batch.masks.device)
        stream = self.adapted(features, context)
        focal, dice = batch.masks.new_zeros(()), batch.masks.new_zeros(())
        for logits in self.logits(stream.seg, pair, features.grid):
            size = batch.masks.shape[-1]
            probability = dense.upsample(logits, size, align_corners=True).softmax(1)
            focal = focal + zl.focal(probability, batch.masks)
            dice = dice + zl.dice(probability[:, 1], batch.masks)
        found = self.image_probabilities(self.logits(stream.det, pair, features.grid))
        labels = batch.labels.to(found).expand_as(found)
        if self.config.loss.image == "released":
            image = F.binary_cross_entropy_with_logits(found, labels, reduction="none")
        else:
            image = F.binary_cross_entropy(found.clamp(1e-6, 1 - 1e-6), labels, reduction="none")
        terms = {"focal": focal, "dice": dice, "image": image.mean(1).sum()}
        return {**terms, "total": focal + dice + terms["image"]}

    def phases(self) -> list[TrainPhase]:
        train = self.config.train
        return [
            TrainPhase(
                name="adapters",
                epochs=train.epochs,
                batch_size=train.batch_size,
                parameters=("seg_adapters.", "det_adapters."),
                optimizer=lambda named: torch.optim.Adam(
                    list(named.values()), lr=train.lr, betas=train.betas
                ),
            )
        ]

    @classmethod
    def import_official(
        cls, state: Any, config: Config, backbone: BackboneInfo
    ) -> ImportedCheckpoint:
        """Translate a released file; see :mod:`zsad.methods.mvfa.convert`."""
        return convert.import_official(state, len(chosen_layers(config, backbone)), backbone)


def chosen_layers(config: Config, backbone: BackboneInfo) -> tuple[int, ...]:
    """Return the 1-based blocks after which adapters sit, in order.

    Raises :class:`RequestError` for a block that the backbone does not have.
    """
    layers = backbone.stages if config.layers == "stages" else tuple(config.layers)
    if not layers or any(not 1 <= int(n) <= backbone.depth for n in layers):
        raise RequestError(
            f"mvfa.layers={list(layers)} does not fit backbone '{backbone.name}'; "
            f"it has blocks 1..{backbone.depth}"
        )
    return tuple(sorted({int(n) for n in layers}))
