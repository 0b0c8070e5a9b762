"""PatchCore (Roth et al., CVPR 2022) on CLIP's patch tokens, few-shot.

In the order of the paper: locally aware patch features (Sec. 3.1), coreset (3.2), scores (3.3).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from zsad.components.memory_bank import MemoryBank, bank_of
from zsad.components.reasons import nth
from zsad.components.windows import window_region
from zsad.config.method_config import shots_in_words
from zsad.errors import RequestError
from zsad.method import Method, chosen_blocks
from zsad.methods.patchcore.config import Config
from zsad.on_device import told
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
)

if TYPE_CHECKING:
    from zsad.backbones.text import TextEncoder


# Memories by the references that they were made of, for as long as these live.
_BANKS: WeakIdKeyDictionary = WeakIdKeyDictionary()


class PatchCore(Method[Config, None]):
    """Nearest-neighbour distance of patches to a coreset of normal patches."""

    name: ClassVar[str] = "patchcore"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.taps = [Tap("tokens", layer) for layer in chosen_layers(config, backbone)]

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(*self.taps)

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, None]:
        """Return nothing: no text is read."""
        return {}

    # --------------------------------------------- Sec. 3.1: locally aware patch features
    def patches(self, features: ImageFeatures) -> Tensor:
        """Return unit patch features [B, L, K*D]: neighbourhood mean and unit norm per layer."""
        layers = []
        for tap in self.taps:
            tokens = neighbourhood_mean(
                features.patches(tap).float(), features.grid, self.config.neighbourhood
            )
            layers.append(F.normalize(tokens, dim=-1))
        return F.normalize(torch.cat(layers, dim=-1), dim=-1)

    # ------------------------------------------------------------------ Sec. 3.2: memory
    def memory(self, key: str, context: ScoreContext[None]) -> MemoryBank:
        """Return the memory of a category; built once for as long as the references live.

        Raises :class:`RequestError` where no references were given.
        """
        references = context.references.get(key)
        if references is None:
            raise RequestError(
                f"patchcore needs normal reference images of '{key}' "
                f"({shots_in_words(self.config.shots)}); "
                f"pass references=[...]"
            )
        known: dict[Hashable, MemoryBank] = _BANKS.setdefault(references, {})
        config = self.config
        made_with = (*self.taps, config.neighbourhood, config.coreset, config.seed)
        if made_with not in known:
            known[made_with] = self._memory_of(references)
        return known[made_with]

    def _memory_of(self, references: ImageFeatures) -> MemoryBank:
        if len(self.taps) == self.config.neighbourhood == 1:  # as they are: what others remember
            bank = bank_of(references, self.taps[0], patches=True)
        else:
            bank = MemoryBank(self.patches(references))
        size = max(1, round(self.config.coreset * len(bank)))
        return bank.coreset(size, seed=self.config.seed)

    # ------------------------------------------------------------------ Sec. 3.3: scores
    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        """Distances ½(1 - cosine) to the memory, [B, h, w] in [0, 1]; image: Eq. 6 and 7."""
        query = self.patches(features)
        keys = [c.key for c in context.categories]
        maps = query.new_empty(query.shape[:2])
        image = query.new_empty(len(keys))
        for key in dict.fromkeys(keys):
            rows = [i for i, other in enumerate(keys) if other == key]
            bank = self.memory(key, context)
            found = bank.neighbours(query[rows])
            maps[rows] = found.distance[..., 0]
            image[rows] = self._image_scores(query[rows], bank, found.distance, found.row)
        return Scores([maps.unflatten(1, features.grid)], image, "values")

    def _image_scores(
        self, query: Tensor, bank: MemoryBank, distance: Tensor, row: Tensor
    ) -> Tensor:
        """Largest patch distance, weighed by how common its nearest memory row is: [B].

        Eq. 7 with Euclidean distances of the unit vectors: s = (1 - exp |q - m*| / sum over the
        ``neighbours`` rows m nearest to m* (itself included) of exp |q - m|) |q - m*|, halved so
        that it lies in [0, 1].  One neighbour: ½(1 - cosine), which ranks as |q - m*| does.
        """
        peak = distance[..., 0].argmax(1)  # [B]
        each = torch.arange(len(query), device=query.device)
        largest = distance[each, peak, 0]
        if self.config.neighbours == 1:
            return largest
        own = 2 * largest.sqrt()  # |q - m| = 2 sqrt(½(1 - cosine)) of unit vectors
        if len(bank) == 1:  # no row is rarer than another
            return own / 2
        nearest = bank.features[row[each, peak, 0]]  # [B, D]
        support = bank.features[bank.neighbours(nearest, self.config.neighbours).row]  # [B, b, D]
        spread = (query[each, peak][:, None] - support).norm(dim=-1)
        share = own.exp() / torch.cat([own[:, None], spread[:, 1:]], 1).exp().sum(1)
        return (1 - share) * own / 2

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(blur="gaussian" if sigma else "none", sigma=sigma)

    def explain(self, scored: Scored[None], k: int = 5) -> list[list[Explanation]]:
        """Return the patches that are farthest from the memory, each with the reference picture
        that holds the nearest one."""
        features, context = scored.features, scored.context
        query = self.patches(features)
        reasons = []
        for i, plane in enumerate(scored.scores.maps[0].flatten(1)):
            key = context.categories[i].key
            references, bank = context.references[key], self.memory(key, context)
            top = plane.topk(min(k, plane.numel()))
            nearest = bank.origin[bank.neighbours(query[i, top.indices]).row[:, 0]]
            length = references.patches(self.taps[0]).shape[1]  # patches of a reference
            found = [
                Explanation(
                    text=f"{nth(rank)}least like its nearest neighbour, reference picture "
                    f"{row // length + 1} of {references.batch_size}",
                    similarity=1 - 2 * value,
                    label="region",
                    source="reference",
                    rank=rank,
                    region=window_region(index, features.grid, 1),
                    note="cosine of the two",
                )
                for rank, (value, index, row) in enumerate(
                    zip(*told(top.values, top.indices, nearest)), start=1
                )
            ]
            normal = Explanation(
                text="every part of it has a like in the reference pictures",
                similarity=found[0].similarity,
                label="normal",
                source="reference",
                rank=1,
                note="cosine of the part that is least like them with its nearest neighbour",
            )
            reasons.append([*found, normal])
        return reasons


def neighbourhood_mean(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Average patch tokens [B, L, D] over ``side`` x ``side`` patches; the border averages over
    what lies inside the image."""
    if side == 1:
        return tokens
    planes = tokens.transpose(1, 2).unflatten(2, grid)
    mean = F.avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False)
    return mean.flatten(2).transpose(1, 2)


def chosen_layers(config: Config, backbone: BackboneInfo) -> tuple[int, ...]:
    """Return the 1-based blocks that the memory is made of.

    Raises :class:`RequestError` for a block that the backbone does not have.
    """
    if config.layers == "penultimate":
        return (max(1, backbone.depth - 1),)
    middle = backbone.stages[1:3] if len(backbone.stages) > 2 else backbone.stages
    layers = middle if config.layers == "middle" else config.layers
    return chosen_blocks("patchcore", layers, backbone)
