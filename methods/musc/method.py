"""MuSc (Li et al., ICLR 2024): the unlabelled test images score each other.

In the order of the paper: local neighbourhood aggregation (Sec. 3.1, LNAMD), mutual scoring
(3.2, MSM), re-scoring of images by their neighbours (3.3, RsCIN).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from zsad import maps as dense
from zsad.components.reasons import nth
from zsad.components.windows import window_region
from zsad.errors import RequestError
from zsad.method import Method, chosen_blocks, stretched
from zsad.methods.musc.config import Config
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

CLS = Tap("cls")
KEPT = 1 << 26  # cosines of patches with whole images that are kept at once
ELEMENTS = 1 << 25  # numbers in the largest table of similarities
IMAGES_ENLARGED = 8  # at a time


@dataclass(frozen=True)
class PopulationScores:
    """Scores of a whole population: ``maps`` [N, L], ``image`` [N] and the ``largest`` of each map
    [N], all in [0, 1], or in [0, 2] for whole distances."""

    maps: Tensor
    image: Tensor
    largest: Tensor


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
        return FeatureRequest.of(CLS, *self.taps, variant=self.config.encoder)

    def prepare_text(self, categories: Sequence[Category], text: TextEncoder) -> dict[str, None]:
        """Return nothing: no text is read."""
        return {}

    # -------------------------------------------------------------------------- scoring
    def score(self, features: ImageFeatures, context: ScoreContext[None]) -> Scores:
        """Euclidean distances of unit patches, halved or not, [B, h, w]; image [B].

        ``info``: the ``largest`` value of an image's own map, the size of the ``population``.

        Raises :class:`RequestError` for a population of one image, or one without this batch.
        """
        population = context.population
        if population is None or population.batch_size < 2:
            raise RequestError(
                "musc compares the test images with each other and needs at least two of them; "
                "give more images at once"
            )
        dataset = context.categories[0].dataset if context.categories else ""
        neighbours = self.config.neighbours_on.get(dataset, self.config.image_neighbours)
        rows = _rows_of(features, population)
        found = self.population_scores(population, neighbours)
        image = found.image[rows]
        info = {
            "largest": found.largest[rows],
            "population": torch.full_like(image, population.batch_size),
        }
        maps = found.maps[rows].unflatten(1, features.grid)
        return Scores([maps], image, "values", info=info)

    def population_scores(
        self, population: ImageFeatures, neighbours: Sequence[int]
    ) -> PopulationScores:
        """Scores of all images; computed once for as long as the population lives."""
        known: dict[Hashable, PopulationScores] = _KNOWN.setdefault(population, {})
        config = self.config
        key = (
            *(*self.taps, *config.degrees, config.nearest, *neighbours),
            *(config.distance, config.image_maximum, config.negative_cosines),
        )
        if key not in known:
            known[key] = self._score_population(population, neighbours)
        return known[key]

    @property
    def stretches(self) -> bool:
        return self.config.stretch

    def over_category(self, scores: Tensor, info: Mapping[str, Tensor]) -> Tensor:
        """Stretch as if each image's own maximum had been stretched before it was averaged with
        its neighbours': the weights of an image add up to 1."""
        return stretched(scores, info["largest"])

    def _score_population(
        self, population: ImageFeatures, neighbours: Sequence[int]
    ) -> PopulationScores:
        """Score every image against all others: mean over layers and degrees."""
        count = population.batch_size
        maps = torch.zeros(count, population.grid[0] * population.grid[1])
        maps = maps.to(population[CLS].device)
        for tap in self.taps:
            for degree in self.config.degrees:
                patches = aggregate(population.patches(tap).float(), population.grid, degree)
                maps += mutual_scores(patches, self.config.nearest)
        maps /= len(self.taps) * len(self.config.degrees)
        if self.config.distance == "euclidean":
            maps *= 2
        largest = maps.amax(1)
        if self.config.image_maximum == "pixels":
            size = population.grid[0] * self.backbone.patch
            parts = maps.unflatten(1, population.grid).split(IMAGES_ENLARGED)
            largest = torch.cat([dense.upsample(p, size, True).amax((1, 2)) for p in parts])
        cls = population[CLS].float()
        image = rescore(largest, cls, neighbours, self.config.negative_cosines)
        return PopulationScores(maps, image, largest)

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
            places = list(zip(*told(top[i], best.indices, best.values)))
            others = len(likeness[i, 0]) - 1
            reasons = [
                Explanation(
                    text=f"{nth(rank)}least like its nearest neighbour, {_name(context, other)}",
                    similarity=cosine,
                    label="region",
                    source="test images",
                    rank=rank,
                    region=window_region(patch, features.grid, 1),
                    note=f"cosine of the two; compared with {others} other pictures",
                )
                for rank, (patch, other, cosine) in enumerate(places, start=1)
            ]
            normal = Explanation(
                text="every part of it has a like in other pictures; the least usual one, in "
                f"{_name(context, places[0][1])}",
                similarity=places[0][2],
                label="normal",
                source="test images",
                rank=1,
                note="cosine of the two",
            )
            found.append([*reasons, normal])
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
    make it normal.  Distances are Euclidean, halved.  N² / 2 products of two images, as long as
    ``KEPT`` has room for what all patches have in common with all images.
    """
    count, length, _ = patches.shape
    kept = max(1, int((count - 1) * nearest))
    size = max(1, KEPT // (count * length))
    scores = []
    for first in range(0, count, size):
        best = _best_likeness(patches, first, min(first + size, count))
        for i, row in enumerate(best, first):
            others = torch.cat([row[:i], row[i + 1 :]])
            distance = (2 - 2 * others).clamp_min(0).sqrt() / 2
            scores.append(distance.topk(kept, dim=0, largest=False).values.mean(0))
    return torch.stack(scores)


def _best_likeness(patches: Tensor, first: int, last: int) -> Tensor:
    """Cosines of the patches of images ``first`` to ``last - 1`` with the most similar patch of
    every image, [last - first, N, L]; 0 for an image itself.

    A product of two images tells this of both, so that those among the wanted are multiplied once.
    """
    count, length, _ = patches.shape
    step = max(1, ELEMENTS // (length * length))
    best = patches.new_zeros(last - first, count, length)
    for i in range(first, last):
        ranges = ((0, first, False), (i + 1, last, True), (last, count, False))
        for begin, end, wanted in ranges:
            for start in range(begin, end, step):
                part = slice(start, min(start + step, end))
                cosines = patches[i] @ patches[part].mT  # [P, L, L]: of an image's with a part's
                best[i - first, part] = cosines.amax(-1)
                if wanted:
                    best[start - first : part.stop - first, i] = cosines.amax(-2)
    return best


# -------------------------------------------------------------------------- Sec. 3.3: RsCIN
def rescore(
    scores: Tensor, cls: Tensor, neighbours: Sequence[int], negative: bool = False
) -> Tensor:
    """Return image scores [N] averaged over each image's nearest ones by class token [N, E].

    Weights are cosines, ``negative`` ones 0 unless they are asked for; an image is its own nearest
    neighbour.  Mean over the numbers of ``neighbours``.  A number above N counts as N.
    """
    unit = F.normalize(cls, dim=-1)
    similarity = unit @ unit.T
    if not negative:
        similarity = similarity.clamp_min(0)
    similarity.fill_diagonal_(1.0)
    rounds = []
    for k in neighbours:
        best = similarity.topk(min(k, len(scores)), dim=1)
        rounds.append((best.values * scores[best.indices]).sum(1) / best.values.sum(1))
    return torch.stack(rounds).mean(0)


def _name(context: ScoreContext[None], row: int) -> str:
    """An image of the population: the name of its file where no other has it, else all of its name
    that is known, else its number."""
    uids = context.population_uids
    if not uids:
        return f"image {row + 1}"
    short = [PurePath(uid).name or uid for uid in uids]
    return short[row] if short.count(short[row]) == 1 else uids[row]


def _rows_of(features: ImageFeatures, population: ImageFeatures) -> Tensor:
    """Find the images of a batch in the population: [B].  Twins have equal scores."""
    same = (features[CLS][:, None] == population[CLS][None]).all(-1)  # [B, N]
    if not bool(same.any(1).all()):
        raise RequestError("musc was asked for images that are not among the test images given")
    return same.int().argmax(1)
