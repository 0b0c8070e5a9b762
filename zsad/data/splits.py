"""Which samples play which role: evaluated, trained on, references.  No torch.

All choices are deterministic functions of sample names and seeds, never of listing order.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from zsad.config.method_config import ALL_SHOTS
from zsad.data.index import DatasetIndex
from zsad.errors import DataError, RequestError, counted
from zsad.types import Sample


def _rank(sample: Sample, salt: str) -> str:
    return hashlib.sha256(f"{salt}/{sample.category}/{sample.uid}".encode()).hexdigest()


def by_category(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Group samples by category, keeping their order."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.category].append(sample)
    return dict(groups)


def limited(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples of one category, as many normal as anomalous where both exist.

    The choice is pseudo-random but fixed, so that a small limit still sees several defect
    types.  0 means all.
    """
    if not limit or len(samples) <= limit:
        return list(samples)
    ranked = sorted(samples, key=lambda s: _rank(s, "limit"))
    normal = [s for s in ranked if s.label == 0]
    anomalous = [s for s in ranked if s.label == 1]
    take_normal = min(len(normal), limit // 2)
    take_anomalous = min(len(anomalous), limit - take_normal)
    take_normal = min(len(normal), limit - take_anomalous)
    kept = {id(s) for s in normal[:take_normal] + anomalous[:take_anomalous]}
    return [s for s in samples if id(s) in kept]


def evaluated(index: DatasetIndex, limit: int = 0) -> dict[str, list[Sample]]:
    """Test samples by category, limited."""
    groups = by_category(s for s in index.samples if s.split == "test")
    return {c: limited(groups[c], limit) for c in index.categories if groups.get(c)}


def auxiliary(index: DatasetIndex, part: str, limit: int = 0, total: int = 0) -> list[Sample]:
    """Samples of ``index`` that a method may be trained on.

    ``part`` "test": the labelled test part (published practice: MVTec's and VisA's training
    parts hold normal images only); "all": both parts.  A dataset whose definition sets
    ``training_split: train`` (``synthetic``) has a labelled training part of its own, and only
    that is used.  ``limit``: at most so many of a category; ``total``: about so many in all, at
    least two of a category, so that a small total takes some of the categories only, spread
    evenly.
    """
    if index.spec.training_split == "train":
        chosen = [
            s
            for s in index.samples
            if s.split == "train" and s.category in index.training_categories
        ]
    elif part == "all":
        chosen = list(index.samples)
    else:
        chosen = [s for s in index.samples if s.split == "test"]
    groups = by_category(chosen)
    names = sorted(groups)
    if total and names:
        share = max(2, -(-total // len(names)))
        limit = min(limit or share, share)
        count = max(1, min(len(names), total // 2))
        names = [names[i * len(names) // count] for i in range(count)]
    return [s for c in names for s in limited(groups[c], limit)]


def references(
    index: DatasetIndex, category: str, shots: int, seed: int, *, replacement: bool = False
) -> list[Sample]:
    """``shots`` normal training images of a category, drawn by ``seed``; :data:`ALL_SHOTS`: all.

    Nested: the first k of a larger draw are the draw of k.  Empty if the dataset has no normal
    training images at all.  ``replacement``: an image may be drawn more than once, as scripts of
    other authors do; otherwise :class:`DataError` is raised when there are some, but too few.
    """
    pool = [
        s for s in index.samples if s.split == "train" and s.label == 0 and s.category == category
    ]
    if shots == ALL_SHOTS:
        return sorted(pool, key=lambda s: s.uid)
    if pool and replacement:
        pool = sorted(pool, key=lambda s: s.uid)
        draw = random.Random(f"reference-{seed}/{category}")
        return [draw.choice(pool) for _ in range(shots)]
    if pool and len(pool) < shots:  # so that at least two are needed
        raise DataError(
            f"{index.spec.name}/{category}: {counted(shots, 'normal reference image')} are needed, "
            f"{counted(len(pool), 'training image')} found; few-shot needs the training part "
            "of the dataset"
        )
    return sorted(pool, key=lambda s: _rank(s, f"reference-{seed}"))[:shots]


def normals(index: DatasetIndex, chosen: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Normal images of the categories of ``chosen`` to compare these with, in training.

    They are those of the dataset's training part, of which nothing is evaluated; for a category
    without any, the normal ones among ``chosen``.
    """
    pools = by_category(s for s in index.samples if s.split == "train" and s.label == 0)
    own = by_category(s for s in chosen if s.label == 0)
    found = {c: pools.get(c) or own.get(c, []) for c in {s.category for s in chosen}}
    return {c: sorted(pool, key=lambda s: s.uid) for c, pool in sorted(found.items())}


def guard(
    trained_uids: Iterable[str], trained_on: str, samples: Iterable[Sample], dataset: str
) -> None:
    """Refuse to evaluate on what was trained on.  Raises :class:`RequestError`."""
    if trained_on != dataset:
        return
    shared = set(trained_uids) & {s.uid for s in samples}
    if shared:
        raise RequestError(
            f"the checkpoint was trained on {len(shared)} of the images of '{dataset}' that it "
            f"would be evaluated on; train on another dataset (`zsad train --on ...`)"
        )
