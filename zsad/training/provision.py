"""Finds the checkpoint of a method by what it depends on, and trains it where it is missing."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zsad.backbones import Backbone
from zsad.checkpoints import bundled
from zsad.config import Settings
from zsad.config.method_config import MethodConfig
from zsad.data import provenance, splits
from zsad.data.index import DatasetIndex
from zsad.io import file_lock, remove_leftover
from zsad.method import new_method
from zsad.registry import MethodEntry
from zsad.training.engine import fit, tidy_cache
from zsad.training.feature_store import FeatureStore
from zsad.training.identity import FOLDER, checkpoint_path, trained_on, training_identity
from zsad.training.run import RESUME, Captions, FitOptions, TrainResult
from zsad.types import Sample

log = logging.getLogger(__name__)

LOCK_SECONDS = 7 * 24 * 3600.0  # another process may be training the same thing


def ensure_trained(
    wanted: Sequence[tuple[MethodEntry, MethodConfig]],
    index: DatasetIndex,
    samples: Sequence[Sample],
    backbone: Backbone,
    *,
    settings: Settings,
    seed: int,
    root: Path | str,
    part: str | None = None,
    store: FeatureStore | None = None,
    captions: Captions | None = None,
    options: FitOptions | None = None,
) -> list[TrainResult]:
    """Return a checkpoint for every (entry, config), training together those that are missing.

    A state that comes with the method takes the place of the training that made it.
    ``root`` is the results folder; a checkpoint lies at ``checkpoints/<method>/<hash>.safetensors``
    below it, where the hash covers config (without keys that only inference reads), backbone,
    auxiliary data and seed: whatever asks for the same training finds the same file.
    Processes that ask at the same time wait for one another.
    """
    part = part or settings.data.train_part
    data = trained_on(index, samples, part)
    jobs: dict[Path, _Job] = {}
    paths = []
    for entry, config in wanted:
        identity = training_identity(
            entry.name, config, backbone, settings, data, seed, entry.revision, index.categories
        )
        paths.append(checkpoint_path(root, entry.name, identity))
        jobs.setdefault(paths[-1], _Job(entry, config, identity))
    results: dict[Path, TrainResult] = {}
    with contextlib.ExitStack() as locks:
        missing = _missing(jobs, backbone.info.name, locks)
        if missing:
            for category, members in splits.by_category(samples).items():
                provenance.note(Path(root), index, category, members)
            trained = fit(
                [new_method(j.entry, j.config, backbone.info, seed) for j in missing.values()],
                index,
                backbone,
                settings=settings,
                seed=seed,
                out_dir=Path(root) / FOLDER,
                samples=samples,
                part=part,
                paths=list(missing),
                store=store,
                captions=captions,
                options=options,
            )
            results = dict(zip(missing, trained))
        else:  # the last training may have been killed just before it tidied up
            tidy_cache(Path(root) / FOLDER)
    return [
        results.get(path) or TrainResult(jobs[path].entry.name, path, reused=True) for path in paths
    ]


class _Job(NamedTuple):
    """A training that is asked for."""

    entry: MethodEntry
    config: MethodConfig
    identity: str


def _missing(
    jobs: Mapping[Path, _Job], backbone: str, locks: contextlib.ExitStack
) -> dict[Path, _Job]:
    """The jobs that are to be trained here, by checkpoint: what lies there is found, and what comes
    with a method is put there.  Each stays locked until ``locks`` is left."""
    missing: dict[Path, _Job] = {}
    for path, job in sorted(jobs.items()):
        if path.is_file():
            _tidy(path)
            continue
        if not follower():
            locks.enter_context(file_lock(path.with_suffix(".lock"), LOCK_SECONDS))
        if path.is_file():  # somebody finished it while we waited
            continue
        if not follower() and bundled.provide(job.entry, backbone, job.identity, path):
            log.info("%s: takes the %s", job.entry.name, bundled.words(path))
            continue
        missing[path] = job
    return missing


def _tidy(path: Path) -> None:
    """Remove what a process left that was killed just after it had written the checkpoint."""
    remove_leftover(path.with_suffix(".lock"))
    with contextlib.suppress(OSError):
        (path.with_suffix("") / RESUME).unlink(missing_ok=True)


def follower() -> bool:
    """Whether Lightning started this process for another device: the first one holds the lock."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("NODE_RANK", "0")) > 0
