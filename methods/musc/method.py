"""MuSc (Li et al., ICLR 2024): the unlabelled test images score each other.

In the order of the paper: local neighbourhood aggregation (Sec. 3.1, LNAMD), mutual scoring
(3.2, MSM), re-scoring of images by their neighbours (3.3, RsCIN).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from zsad.components.windows import window_region
from zsad.errors import RequestError
from zsad.method import Method, chosen_blocks
from zsad.methods.musc.config import Config
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

CLS = Tap("cls")
ELEMENTS = 1 << 25  # numbers in the largest table of similarities


@dataclass(frozen=True)
class PopulationScores:
    """Scores of a whole population: ``maps`` [N, L] and ``image`` [N], both in [0, 1]."""

    maps: Tensor
    image: Tensor


# By population, for as long as it lives, and by what the scores depend on besides.
_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


class MuSc(Method[Config, None]):
    """Mutual scoring: a patch is anomalous if it has no like in most other images."""

    name: ClassVar[str] = "musc"

    def __init__(self, config: Config, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.taps = [Tap("tokens", n) for n in chosen_blocks(self.name, config.layers, backbone)]

    @property
    def transductive(self) -> bool:
        """All test images of a category are needed at once."""
        return True

    def feature_request(self) -> FeatureRequest:
        return FeatureRequest.of(CLS, *self.taps)

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, None]:
        """Return nothing: no text is read."""
        return {}

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        """Half the Euclidean distances of unit patches, [B, h, w] in [0, 1]; image [B].

        Raises :class:`RequestError` for a population of one image, or one without this batch.
        """
        population = context.population
        if population is None or population.batch_size < 2:
            raise RequestError(
                "musc compares the test images with each other and needs at least two of them; "
                "give more images at once"
            )
        rows = _rows_of(features, population)
        found = self.population_scores(population)
        image = found.image[rows]
        size = torch.full_like(image, population.batch_size)
        maps = found.maps[rows].unflatten(1, features.grid)
        return Scores([maps], image, "values", info={"population": size})

    def population_scores(self, population: ImageFeatures) -> PopulationScores:
        """Scores of all images; computed once for as long as the population lives."""
        known: dict[Hashable, PopulationScores] = _KNOWN.setdefault(population, {})
        config = self.config
        key = (*self.taps, *config.degrees, config.nearest, *config.image_neighbours)
        if key not in known:
            known[key] = self._score_population(population)
        return known[key]

    def _score_population(self, population: ImageFeatures) -> PopulationScores:
        """Score every image against all others: mean over layers and degrees."""
        count = population.batch_size
        maps = torch.zeros(count, population.grid[0] * population.grid[1])
        maps = maps.to(population[CLS].device)
        for tap in self.taps:
            for degree in self.config.degrees:
                patches = aggregate(population.patches(tap).float(), population.grid, degree)
                maps += mutual_scores(patches, self.config.nearest)
        maps /= len(self.taps) * len(self.config.degrees)
        image = rescore(maps.amax(1), population[CLS].float(), self.config.image_neighbours)
        return PopulationScores(maps, image)

    def map_spec(self) -> MapSpec:
        sigma = self.config.sigma
        return MapSpec(align_corners=True, blur="gaussian" if sigma else "none", sigma=sigma)

    def explain(self, scored: Scored[None], k: int = 5) -> list[list[Explanation]]:
        """Return the most anomalous patches, each with the image that holds its nearest like.

        ``similarity`` is the cosine of the two, mean over the layers, without neighbourhoods.
        """
        features, scores, context = scored.features, scored.scores, scored.context
        population = context.population
        if population is None:
            return [[] for _ in range(features.batch_size)]
        rows = _rows_of(features, population).tolist()
        planes = scores.maps[0].flatten(1)  # [B, L]
        top = planes.topk(min(k, planes.shape[1])).indices  # [B, k]
        likeness = torch.zeros(*top.shape, population.batch_size, device=planes.device)
        for tap in self.taps:
            patches = aggregate(population.patches(tap).float(), population.grid, 1)
            for i, (row, chosen) in enumerate(zip(rows, top)):
                likeness[i] += (patches @ patches[row, chosen].T).amax(1).T / len(self.taps)
        found = []
        for i, row in enumerate(rows):
            likeness[i, :, row] = -torch.inf
            best = likeness[i].max(1)
            found.append(
                [
                    Explanation(
                        text=f"its nearest like is in {_name(context, other)}",
                        similarity=cosine,
                        label="region",
                        source="test images",
                        rank=rank,
                        region=window_region(patch, features.grid, 1),
                        note=f"most alike among the patches of {len(likeness[i, 0]) - 1} images",
                    )
                    for rank, (patch, other, cosine) in enumerate(
                        zip(top[i].tolist(), best.indices.tolist(), best.values.tolist()), start=1
                    )
                ]
            )
        return found

    def run_info(
        self, text: Any = None, means: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """The number of images that scored each other."""
        return {"population": round(means["population"]) if means else 0}


# -------------------------------------------------------------------------- Sec. 3.1: LNAMD
def aggregate(tokens: Tensor, grid: tuple[int, int], degree: int) -> Tensor:
    """Return unit patch features [N, L, D]: mean over ``degree`` x ``degree`` patches.

    Each image's tokens are standardised as a whole first; beyond the border there are zeros.
    """
    tokens = F.layer_norm(tokens, tokens.shape[1:])
    if degree > 1:
        planes = tokens.transpose(1, 2).unflatten(2, grid)
        mean = F.avg_pool2d(planes, degree, stride=1, padding=degree // 2)
        tokens = mean.flatten(2).transpose(1, 2)
    return F.normalize(tokens, dim=-1)


# ---------------------------------------------------------------------------- Sec. 3.2: MSM
def mutual_scores(patches: Tensor, nearest: float) -> Tensor:
    """Return the anomaly scores [N, L] of unit patches [N, L, D], in [0, 1].

    The distance of a patch to another image is that to its most similar patch; the mean of the
    ``nearest`` share of these distances counts, so that few images with the same defect do not
    make it normal.  Distances are Euclidean, halved.  N² image pairs.
    """
    count, length, _ = patches.shape
    kept = max(1, int((count - 1) * nearest))
    step = max(1, ELEMENTS // (length * length))
    scores = []
    for i, image in enumerate(patches):
        best = torch.cat([(image @ part.mT).amax(-1) for part in patches.split(step)])  # [N, L]
        others = torch.cat([best[:i], best[i + 1 :]])
        distance = (2 - 2 * others).clamp_min(0).sqrt() / 2
        scores.append(distance.topk(kept, dim=0, largest=False).values.mean(0))
    return torch.stack(scores)


# -------------------------------------------------------------------------- Sec. 3.3: RsCIN
def rescore(scores: Tensor, cls: Tensor, neighbours: Sequence[int]) -> Tensor:
    """Return image scores [N] averaged over each image's nearest ones by class token [N, E].

    Weights are cosines; an image is its own nearest neighbour.  Mean over the numbers of
    ``neighbours``.  A number above N counts as N.
    """
    unit = F.normalize(cls, dim=-1)
    similarity = (unit @ unit.T).clamp_min(0)
    similarity.fill_diagonal_(1.0)
    rounds = []
    for k in neighbours:
        best = similarity.topk(min(k, len(scores)), dim=1)
        rounds.append((best.values * scores[best.indices]).sum(1) / best.values.sum(1))
    return torch.stack(rounds).mean(0)


def _name(context: ScoreContext[None], row: int) -> str:
    """An image of the population by its name, else by its number."""
    uids = context.population_uids
    return uids[row] if uids else f"image {row + 1}"


def _rows_of(features: ImageFeatures, population: ImageFeatures) -> Tensor:
    """Find the images of a batch in the population: [B].  Twins have equal scores."""
    same = (features[CLS][:, None] == population[CLS][None]).all(-1)  # [B, N]
    if not bool(same.any(1).all()):
        raise RequestError("musc was asked for images that are not among the test images given")
    return same.int().argmax(1)
