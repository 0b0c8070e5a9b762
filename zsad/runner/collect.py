"""Picks the example pictures of a cell while its images stream past."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zsad.data.images import read_image, read_mask
from zsad.errors import ZsadError
from zsad.examples import SIDE, Example
from zsad.runner.heads import Head
from zsad.types import BuiltMaps, Explanation, ImageFeatures, Sample, ScoreContext, Scores

log = logging.getLogger(__name__)


@dataclass
class _Candidate:
    sample: Sample
    score: float
    map: np.ndarray
    explanations: list[Explanation]


@dataclass
class ExampleCollector:
    """Keeps, per head, the ``per_kind`` highest and lowest scores of either label.

    Call it with every scored batch; memory is bounded by 4 x ``per_kind`` small maps per head.
    """

    per_kind: int = 1
    _kept: dict[int, dict[str, list[_Candidate]]] = field(default_factory=dict)

    def __call__(
        self,
        head: Head,
        samples: Sequence[Sample],
        features: ImageFeatures,
        scores: Scores,
        maps: BuiltMaps,
        image_scores: Tensor,
        context: ScoreContext,
    ) -> None:
        """Look at one batch of a head."""
        kept = self._kept.setdefault(id(head), {})
        values = image_scores.tolist()
        entering = [
            i for i in range(len(samples)) if self._enters(kept, samples[i].label, values[i])
        ]
        if not entering:
            return
        reasons = _explain(head, features, scores, maps, context)
        small = F.interpolate(
            maps.final[entering][:, None].float(),
            size=(SIDE, SIDE),
            mode="bilinear",
            antialias=True,
        )
        for row, i in enumerate(entering):
            candidate = _Candidate(samples[i], values[i], small[row, 0].cpu().numpy(), reasons[i])
            for kind in _kinds(samples[i].label):
                best = kept.setdefault(kind, [])
                best.append(candidate)
                best.sort(
                    key=lambda c: (c.score, c.sample.uid),
                    reverse=kind in ("detected", "false alarm"),
                )
                del best[self.per_kind :]

    def _enters(self, kept: dict[str, list[_Candidate]], label: int, score: float) -> bool:
        for kind in _kinds(label):
            best = kept.get(kind, [])
            high = kind in ("detected", "false alarm")
            if len(best) < self.per_kind or (
                score > best[-1].score if high else score < best[-1].score
            ):
                return True
        return False

    def examples(self, head: Head) -> list[Example]:
        """The kept examples of a head, each picture once; unreadable ones are left out."""
        found: dict[str, Example] = {}
        for kind, candidates in self._kept.get(id(head), {}).items():
            for c in candidates:
                if c.sample.uid in found:
                    continue
                try:
                    found[c.sample.uid] = _example(c, kind)
                except ZsadError as error:
                    log.warning("no example picture: %s", error)
        return list(found.values())


def _kinds(label: int) -> tuple[str, str]:
    return ("detected", "missed") if label else ("clean", "false alarm")


def _explain(
    head: Head, features: ImageFeatures, scores: Scores, maps: BuiltMaps, context: ScoreContext
) -> list[list[Explanation]]:
    """A method whose explanation fails still has its numbers; the failure is logged."""
    try:
        with torch.no_grad():
            return head.method.explain(features, scores, maps, context, 5)
    except Exception as error:
        log.warning("%s: explanation failed (%s: %s)", head.label, type(error).__name__, error)
        return [[] for _ in range(features.batch_size)]


def _example(candidate: _Candidate, kind: str) -> Example:
    sample = candidate.sample
    picture = read_image(sample.image, sample.crop).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    mask = None
    if sample.mask is not None:
        height, width = SIDE, SIDE
        mask = np.asarray(
            Image.fromarray(read_mask(sample, (height, width))).resize(
                (SIDE, SIDE), Image.Resampling.NEAREST
            )
        ).astype(bool)
    return Example(
        uid=sample.uid,
        kind=kind,
        label=sample.label,
        defect=sample.defect,
        score=candidate.score,
        jpeg=buffer.getvalue(),
        map=candidate.map,
        mask=mask,
        explanations=candidate.explanations,
    )
