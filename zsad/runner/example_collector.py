"""Picks the example pictures of a cell while its images stream past."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zsad.components.reasons import fitting
from zsad.data.images import read_image, read_mask
from zsad.errors import ZsadError
from zsad.on_device import able, picked
from zsad.results import gallery
from zsad.results.examples import SIDE, Example
from zsad.results.gallery import MapGallery
from zsad.runner.heads import Head
from zsad.types import Explanation, Sample, Scored

log = logging.getLogger(__name__)

REASONS = 5  # shown with a picture
HIGH = ("detected", "false alarm")  # what speaks against them is shown; of the others, what for


@dataclass
class _Candidate:
    sample: Sample
    score: float
    map: np.ndarray | None = None
    explanations: list[Explanation] = field(default_factory=list)

    @property
    def kinds(self) -> tuple[str, str]:
        return ("detected", "missed") if self.sample.label else ("clean", "false alarm")


@dataclass
class ExamplePictures:
    """Keeps the ``per_kind`` highest and lowest scores of either label of one column.

    Memory is bounded by 4 x ``per_kind`` small maps.
    """

    per_kind: int = 1
    _kept: dict[str, list[_Candidate]] = field(default_factory=dict)

    def look(
        self,
        samples: Sequence[Sample],
        scores: Sequence[float],
        maps: Tensor | None,
        explain: Callable[[list[int]], list[list[Explanation]]] | None = None,
    ) -> None:
        """Look at one batch, maps [B, H, W]; only the rows that enter are explained.

        Without maps there is nothing to show.  An image that was seen before (a head may begin a
        category anew) takes its own place."""
        if maps is None:
            return
        kept = self._kept
        again = {sample.uid for sample in samples}
        for kind, seen in kept.items():
            kept[kind] = [c for c in seen if c.sample.uid not in again]
        new = [_Candidate(sample, score) for sample, score in zip(samples, scores)]
        best = {
            kind: _best(kind, [*kept.get(kind, []), *(c for c in new if kind in c.kinds)])
            for kind in dict.fromkeys([*kept, *(k for c in new for k in c.kinds)])
        }
        kept |= {kind: candidates[: self.per_kind] for kind, candidates in best.items()}
        held = {id(c) for candidates in kept.values() for c in candidates}
        entering = [i for i, candidate in enumerate(new) if id(candidate) in held]
        if not entering:
            return
        planes = able(picked(maps, entering)[:, None].float())
        small = F.interpolate(planes, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        reasons: list[list[Explanation]] = explain(entering) if explain else [[] for _ in entering]
        for i, plane, own in zip(entering, small[:, 0].cpu().numpy(), reasons):
            new[i].map, new[i].explanations = plane, own

    def examples(self) -> list[Example]:
        """What was kept, each picture once; unreadable ones are left out."""
        found: dict[str, Example] = {}
        for kind, candidates in self._kept.items():
            for c in candidates:
                if c.sample.uid in found:
                    continue
                try:
                    found[c.sample.uid] = _example(c, kind)
                except ZsadError as error:
                    log.warning("no example picture: %s", error)
        return list(found.values())


@dataclass
class ExampleCollector:
    """The examples of every head of a category.  Call it with every scored batch."""

    per_kind: int = 1
    shown: frozenset[str] = frozenset()  # pictures of which every map is kept, small
    _of: dict[int, ExamplePictures] = field(default_factory=dict)
    _maps: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)

    def __call__(self, head: Head, samples: Sequence[Sample], scored: Scored[Any]) -> None:
        """Look at one batch of a head."""
        self._keep_maps(head, samples, scored.maps.final)
        pictures = self._of.setdefault(id(head), ExamplePictures(self.per_kind))
        pictures.look(
            samples,
            scored.image_scores.tolist(),
            scored.maps.final,
            lambda rows: _explain(head, scored, rows),
        )

    def _keep_maps(self, head: Head, samples: Sequence[Sample], maps: Tensor | None) -> None:
        rows = [i for i, sample in enumerate(samples) if sample.uid in self.shown]
        if maps is None or not rows:
            return
        size = (gallery.MAP_SIDE, gallery.MAP_SIDE)
        planes = F.interpolate(
            able(picked(maps, rows)[:, None].float()), size, mode="bilinear", antialias=True
        )
        held = self._maps.setdefault(id(head), {})
        held |= {samples[i].uid: m for i, m in zip(rows, planes[:, 0].cpu().numpy())}

    def maps(self, head: Head) -> MapGallery | None:
        """The small maps of a head; None where there are none."""
        held = self._maps.get(id(head))
        return MapGallery.of(list(held), list(held.values())) if held else None

    def examples(self, head: Head) -> list[Example]:
        """The kept examples of a head."""
        pictures = self._of.get(id(head))
        return pictures.examples() if pictures else []


def _best(kind: str, candidates: list[_Candidate]) -> list[_Candidate]:
    """The candidates in the order in which they are worth showing.

    Among equal scores names decide, so that batches do not matter; the last name comes first where
    scores are to be high, so that the two kinds of a label show two pictures."""
    return sorted(candidates, key=lambda c: (c.score, c.sample.uid), reverse=kind in HIGH)


def _explain(head: Head, scored: Scored[Any], rows: list[int]) -> list[list[Explanation]]:
    """A method whose explanation fails still has its numbers; the failure is logged."""
    try:
        return head.scorer.explain(scored.select(rows), REASONS)
    except Exception as error:
        log.warning("%s: explanation failed (%s: %s)", head.label, type(error).__name__, error)
        return [[] for _ in rows]


def _example(candidate: _Candidate, kind: str) -> Example:
    sample = candidate.sample
    assert candidate.map is not None  # every candidate that is kept has one
    seen = read_image(sample.image, sample.crop, sample.bits)
    picture = seen.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    mask = None
    if sample.mask is not None:
        mask = read_mask(sample, (SIDE, SIDE), (seen.height, seen.width))
    return Example(
        uid=sample.uid,
        kind=kind,
        label=sample.label,
        defect=sample.defect,
        score=candidate.score,
        jpeg=buffer.getvalue(),
        map=candidate.map,
        mask=mask,
        explanations=fitting(candidate.explanations, kind in HIGH, REASONS),
    )
