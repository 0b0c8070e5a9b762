"""Measures the scores and maps of one dataset that came from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from zsad import __version__
from zsad import config as cfg
from zsad.config import Settings
from zsad.data.ignored import of_sample, shrunk
from zsad.data.images import sample_size
from zsad.data.index import DatasetIndex
from zsad.data.transforms import MaskPolicy
from zsad.errors import DataError, counted
from zsad.exchange.maps import Outside, refuse
from zsad.metrics import CategoryMetrics, MetricResult
from zsad.results import pixels
from zsad.results.examples import SIDE, CellExamples
from zsad.results.records import CellRecord
from zsad.runner.example_collector import ExamplePictures
from zsad.runner.outcome import curves_of
from zsad.types import Sample

BATCH = 8  # images whose maps are in memory at a time
PREFIX = "imported:"  # of the name that records are stored under


@dataclass
class Measured:
    """One category's record, with what belongs to it and the samples behind it."""

    record: CellRecord
    scores: dict[str, list[Any]]
    pictures: CellExamples
    samples: list[Sample]


@dataclass
class DatasetImport:
    """The maps and scores of one dataset, to be measured as the column ``name``.

    ``samples``: the test images by category; ``source``: where the maps are from, for messages.
    """

    name: str
    source: str
    index: DatasetIndex
    samples: dict[str, list[Sample]]
    outside: Outside
    settings: Settings
    provenance: str = ""
    seed: int = 0
    limit: int = 0
    shots: int = 0

    def missing(self) -> list[str]:
        """The images without a map (where there are maps) or without a score (where there are
        any)."""
        kinds = [kind for kind in (self.outside.maps, self.outside.scores) if kind]
        return [s.uid for s in self._every if not all(s.uid in kind for kind in kinds)]

    def require_all(self) -> None:
        """Raise :class:`DataError` that names the first images for which there is nothing."""
        missing = self.missing()
        refuse(
            f"{self.source}: nothing for {len(missing)} of {counted(len(self._every), 'image')} of "
            f"{self.index.spec.name}",
            missing,
            "give all of them, or --partial for figures that are never ranked",
        )

    def measure(self) -> list[Measured]:
        """A record for every category with an image.

        Raises :class:`DataError` for maps that are not finite, or of a size that fits nothing.
        """
        gone = set(self.missing())
        kept = {c: [s for s in group if s.uid not in gone] for c, group in self.samples.items()}
        return [self._category(c, group) for c, group in kept.items() if group]

    # ------------------------------------------------------------------------------ sizes
    @property
    def _every(self) -> list[Sample]:
        return [s for group in self.samples.values() for s in group]

    @cached_property
    def side(self) -> int:
        """The side in pixels of the square that all maps have; 0 where each has the size of its
        picture, and where there are none."""
        maps = self.outside.maps
        held = [s for s in self._every if s.uid in maps]
        shapes = {maps[s.uid].shape for s in held}
        if len(shapes) == 1 and len(set(next(iter(shapes)))) == 1:
            return int(next(iter(shapes))[0])
        wrong = []
        for sample in held:
            (height, width), own = maps[sample.uid].shape, sample_size(sample)
            if (height, width) != own:
                wrong.append(f"{sample.uid} ({width}x{height}, its picture {own[1]}x{own[0]})")
        refuse(
            f"{self.source}: {counted(len(wrong), 'map')} of the wrong size",
            wrong,
            "give every map the size of its picture, or all of them one square size",
        )
        return 0

    @cached_property
    def policy(self) -> MaskPolicy:
        """How masks meet the maps: at their own size where the maps have it."""
        return MaskPolicy(self.settings.data.mask_resize if self.side else "native")

    # -------------------------------------------------------------------------- one category
    def _category(self, category: str, samples: list[Sample]) -> Measured:
        metrics = CategoryMetrics.of(self.settings.metrics)
        pictures, content = ExamplePictures(), hashlib.sha256()
        found: list[float] = []
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            planes, scores = self._read(batch)
            for sample, score, plane in zip_longest(batch, scores, planes):  # planes may be none
                content.update(f"{sample.uid}\0{score!r}\0".encode("utf-8", "backslashreplace"))
                content.update(b"" if plane is None else plane.tobytes())
                self._update(metrics, sample, score, plane)
            pictures.look(batch, scores, _small(planes))
            found += scores
        table: dict[str, list[Any]] = {
            "uid": [s.uid for s in samples],
            "label": [s.label for s in samples],
            "defect": [s.defect for s in samples],
            "score": found,
            "path": [s.uid for s in samples],
            **pixels.columns(metrics.pixel_table()),
        }
        record = self._record(category, samples, metrics.compute(), content.hexdigest())
        return Measured(
            record, table, CellExamples(pictures.examples(), curves_of(metrics)), samples
        )

    def _read(self, samples: Sequence[Sample]) -> tuple[list[np.ndarray], list[float]]:
        """The maps of these images ([] where there are none), and their scores."""
        try:
            held = samples if self.outside.maps else ()
            planes = [self.outside.maps[sample.uid].read() for sample in held]
        except DataError:
            self._refuse_unusable()
            raise
        if self.outside.scores:
            return planes, [self.outside.scores[s.uid] for s in samples]
        return planes, [_highest(sample, plane) for sample, plane in zip(samples, planes)]

    def _refuse_unusable(self) -> None:
        """Raise :class:`DataError` that counts the maps that cannot be used, and names three."""
        held = [s.uid for s in self._every if s.uid in self.outside.maps]
        faults = [(uid, why) for uid in held if (why := self.outside.maps[uid].fault())]
        refuse(
            f"{self.source}: {counted(len(faults), 'map')} cannot be used",
            [f"{uid} ({why})" for uid, why in faults],
            "make them again",
        )

    def _update(
        self, metrics: CategoryMetrics, sample: Sample, score: float, plane: np.ndarray | None
    ) -> None:
        scores = torch.tensor([score], dtype=torch.float64)
        labels = torch.tensor([sample.label])
        if plane is None:
            metrics.update(None, None, scores, labels)
            return
        has_mask = sample.label == 0 or sample.mask is not None
        mask = self.policy.read(sample, self.side)
        maps = torch.from_numpy(plane)[None]
        if maps.shape[1:] != mask.shape:  # masks of their own size meet maps of another
            maps = F.interpolate(maps[None], size=tuple(mask.shape), mode="bilinear")[0]
        hidden = _hidden(sample, mask.shape)
        metrics.update(
            maps,
            torch.from_numpy(np.array(mask))[None],
            scores,
            labels,
            torch.tensor([has_mask]),
            None if hidden is None else torch.from_numpy(hidden)[None],
        )

    def _record(
        self, category: str, samples: Sequence[Sample], result: MetricResult, content: str
    ) -> CellRecord:
        index, metrics = self.index, cfg.identity(self.settings.metrics)
        identity = {
            "imported": self.name,
            "content": content,
            "data": {"mask_resize": self.policy.resize},
            "metrics": metrics,
            "dataset": [index.spec.name, index.variant, index.fingerprint, category],
            **({"shots": self.shots} if self.shots else {}),
        }
        absent = {s.uid for s in self.samples[category]} - {s.uid for s in samples}
        per_image = {"metric_per_image": result.per_image} if result.per_image else {}
        return CellRecord(
            method=PREFIX + self.name,
            dataset=index.spec.name,
            category=category,
            seed=self.seed,
            fingerprint=cfg.digest(identity, 16),
            metrics=dict(result.metrics),
            undefined=dict(result.undefined),
            n_normal=result.n_normal,
            n_anomalous=result.n_anomalous,
            seconds={},
            info={
                "title": f"{self.name} (imported)",
                "method": PREFIX + self.name,
                "group": "imported",
                "imported": {
                    "provenance": self.provenance,
                    "maps": self.map_words,
                    "image_score": self.score_words,
                    "content": content,
                    "zsad": __version__,
                },
                "variant": index.variant,
                "dataset_fingerprint": index.fingerprint,
                **({"missing_categories": list(index.missing)} if index.missing else {}),
                **({"skipped": [f"{u}: not imported" for u in sorted(absent)]} if absent else {}),
                **self._ignored(),
                "limit": self.limit,
                **({"shots": self.shots} if self.shots else {}),
                "mask_resize": self.policy.resize,
                "metrics": metrics,
                **index.figure_rules,
                "metric_bounds": dict(result.bounds),
                **per_image,
            },
        )

    def _ignored(self) -> dict[str, Any]:
        """What a record says of pixels that are not looked at; given scores may rest on them."""
        text = self.index.ignore
        seen = bool(self.outside.scores)
        return {"ignore": text, "score_sees_ignored": seen} if text else {}

    @property
    def map_words(self) -> str:
        """What the maps are, for a footnote."""
        if not self.outside.maps:
            return "no maps"
        return f"maps of {self.side} px" if self.side else "maps of the pictures' own sizes"

    @property
    def score_words(self) -> str:
        """Where the image scores are from, for a footnote."""
        return "given" if self.outside.scores else "largest value of the map"


def _hidden(sample: Sample, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """What is ignored of a picture, bool [H, W] at the ``shape`` of a map; None: nothing."""
    found = of_sample(sample, sample_size(sample))
    return None if found is None else shrunk(found, (shape[0], shape[1]))


def _highest(sample: Sample, plane: np.ndarray) -> float:
    """The largest value of a map, of the pixels that are looked at."""
    hidden = _hidden(sample, plane.shape)
    return float(plane.max() if hidden is None else plane[~hidden].max())


def _small(planes: Sequence[np.ndarray]) -> Tensor | None:
    """Maps of any sizes as one tensor [B, SIDE, SIDE], for the small pictures of the report."""
    if not planes:
        return None
    tensors = [torch.from_numpy(plane)[None, None] for plane in planes]
    small = [F.interpolate(t, size=(SIDE, SIDE), mode="bilinear", antialias=True) for t in tensors]
    return torch.cat(small)[:, 0]
