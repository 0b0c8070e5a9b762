"""Trains methods on frozen features with Lightning.

One encoder pass over the auxiliary images serves all methods that are trained together (per
encoder variant), all their phases and all their epochs.  Each method then has its own phases,
optimiser and schedule.  A training that was killed goes on at the step where its state was last
written, and ends with the very same bits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data import splits
from zsad.data.contents import contents
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError
from zsad.io import remove_scratch
from zsad.method import AnyMethod, feature_request
from zsad.on_device import algorithms
from zsad.training.feature_store import SCRATCH, FeatureStore
from zsad.training.identity import trained_on, training_identity
from zsad.training.images import TrainingImages, default_store
from zsad.training.run import Captions, FitOptions, MethodRun, TrainResult
from zsad.types import FeatureRequest, Sample

CACHE = "cache"  # folder of features beside the checkpoints, while something is trained


def fit(
    methods: Sequence[AnyMethod],
    index: DatasetIndex,
    backbone: Backbone,
    *,
    settings: Settings,
    seed: int,
    out_dir: Path | str,
    samples: Sequence[Sample] | None = None,
    part: str | None = None,
    paths: Sequence[Path] | None = None,
    store: FeatureStore | None = None,
    captions: Captions | None = None,
    options: FitOptions | None = None,
) -> list[TrainResult]:
    """Train ``methods`` on the samples of ``index`` and write one checkpoint each.

    ``samples``: default :func:`zsad.data.splits.auxiliary` of the index and ``part``
    (``settings.data.train_part``).  ``paths``: the checkpoint files; default
    ``out_dir/<method>.safetensors``.  Logs and resume states lie beside them.  ``store``:
    a feature store to share between calls; else one is made as ``settings.run`` asks.
    ``captions``: writes sentences about training images for methods that want some; default
    :func:`zsad.prompt_bank.captions.captions_for`.
    A checkpoint that exists for the same training is returned as it is (``options.resume``).
    Raises :class:`RequestError` for a training-free method, :class:`DataError` for unreadable
    images, :class:`CellError` when a loss is not a number.
    """
    options = options or FitOptions()
    out = Path(out_dir)
    part = part or settings.data.train_part
    chosen = list(samples) if samples is not None else splits.auxiliary(index, part)
    for method in methods:
        if not method.phases():
            raise RequestError(
                f"method '{method.name}' is training-free: there is nothing to train"
            )
    targets = list(paths or (out / f"{m.name}.safetensors" for m in methods))
    if len(set(targets)) != len(methods):
        raise RequestError("two methods would write the same checkpoint; train them apart")
    data = trained_on(index, chosen, part)
    size = settings.backbone.image_size
    pictures = cache(lambda: contents(sorted(chosen, key=lambda s: s.uid)))
    runs = [
        MethodRun(
            method=method,
            path=path,
            request=feature_request(method, size, training=True),
            categories=index.categories,
            samples=chosen,
            backbone=backbone,
            seed=seed,
            trained_on=data,
            captions=captions,
            contents=pictures,
            normals=splits.normals(index, chosen) if method.needs_partners else {},
            identity=training_identity(
                method.name,
                method.config,
                backbone,
                settings,
                data,
                seed,
                method.revision,
                index.categories,
            ),
        )
        for method, path in zip(methods, targets)
    ]
    results: dict[int, TrainResult] = {}
    open_runs = []
    for i, run in enumerate(runs):
        done = run.finished() if options.resume else None
        if done is not None:
            results[i] = done
        else:
            open_runs.append((i, run))
    own_store = store is None
    if open_runs and store is None:
        store = default_store(settings, backbone.device, out / CACHE)
    try:
        # Methods of one variant follow each other: they share what the store holds.
        for i, run in sorted(open_runs, key=lambda pair: (pair[1].request.variant, pair[0])):
            assert store is not None
            images = TrainingImages(backbone, settings, store)
            company = [r.request for _, r in open_runs if r.request.variant == run.request.variant]
            with _quiet(settings.run.deterministic):
                results[i] = run.train(images, FeatureRequest.merge(company), options)
    finally:
        if own_store and store is not None:
            store.close()
            tidy_cache(out)
    return [results[i] for i in range(len(runs))]


@contextlib.contextmanager
def _quiet(deterministic: bool) -> Iterator[None]:
    """Train deterministically where torch can, and without Lightning's messages.

    The process' settings are restored afterwards.
    """
    talk = logging.getLogger("lightning.pytorch")
    level = talk.level
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # if it was not chosen here
    talk.setLevel(logging.ERROR)
    try:
        with algorithms(deterministic=deterministic or None), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        talk.setLevel(level)


def tidy_cache(out: Path) -> None:
    """Remove the feature cache below ``out`` as far as no living process uses it."""
    remove_scratch(out / CACHE, SCRATCH)
    with contextlib.suppress(OSError):  # absent, not empty, or another process was faster
        (out / CACHE).rmdir()
