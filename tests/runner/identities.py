"""Fingerprints, training identities, configs and names of trained tensors of many requests.

``identities_c8305d8.json`` holds what commit c8305d8 answers.  Results and checkpoints made with it
are found only as long as the same request gives the same answer.  The weights are named, not
loaded, so that new weights of ``zsad-tiny`` do not touch the file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad import registry
from zsad.backbones import Backbone, load
from zsad.data import splits
from zsad.data.index import load_index
from zsad.method import new_method
from zsad.results.store import ResultStore
from zsad.runner.columns import Column
from zsad.runner.plan import build_plan
from zsad.runner.request import Request, build_request
from zsad.training.identity import trained_on, training_config, training_identity

WEIGHTS = "0" * 64
SEEDS = (0, 1)
LIMIT = 2


def configs() -> Iterator[tuple[str, str, list[str]]]:
    """(name, method, overrides): every method in every preset, and few-shot where there is any."""
    for entry in registry.methods().values():
        if "zsad.methods." not in entry.target:
            continue
        for preset in ("default", *(p for p in entry.presets if p != "default")):
            yield f"{entry.name}:{preset}", entry.name, [f"{entry.name}.preset={preset}"]
        if "shots" in entry.defaults:
            yield f"{entry.name}:shots=2", entry.name, [f"{entry.name}.shots=2"]


def request(method: str, overrides: list[str], results: Path) -> Request:
    """A sweep of one method over the synthetic dataset on zsad-tiny, at most two images a kind."""
    return build_request(
        methods=method,
        datasets="synthetic",
        backbone="zsad-tiny",
        results=results,
        seeds=list(SEEDS),
        limit=LIMIT,
        overrides=overrides,
    )


def fingerprints(asked: Request) -> dict[str, str]:
    """``category/seed`` to fingerprint."""
    plan = build_plan(asked, ResultStore(asked.results), WEIGHTS, demo=True)
    return {f"{key.category}/{key.seed}": key.fingerprint for key, _ in plan.cells()}


@cache
def tiny() -> Backbone:
    """zsad-tiny under a constant name of its weights."""
    backbone = load("zsad-tiny", device="cpu")
    backbone.info = dataclasses.replace(backbone.info, weights_sha256=WEIGHTS)
    return backbone


def identity(asked: Request, **more: Any) -> str:
    """The training identity of a request's only column at seed 1."""
    column = asked.columns[0]
    index = load_index("synthetic")
    samples = splits.auxiliary(index, "test", LIMIT, 4 * LIMIT)
    data = trained_on(index, samples, "test")
    return training_identity(
        column.entry.name, column.config, tiny(), asked.settings, data, 1, **more
    )


def state_of(column: Column) -> list[tuple[str, list[int]]]:
    """Names and shapes of what a checkpoint of a column holds, in order."""
    method = new_method(column.entry, column.config, tiny().info)
    return [(name, list(value.shape)) for name, value in method.trained_state().items()]


def everything(results: Path) -> dict[str, dict[str, str]]:
    """Everything that the file holds, computed by the code as it is."""
    found: dict[str, dict[str, str]] = {}
    for name, method, overrides in configs():
        asked = request(method, overrides, results)
        column = asked.columns[0]
        entry = {
            "config": cfg.digest(cfg.hashed(column.config)),
            "training_config": cfg.digest(training_config(column.config)),
            **fingerprints(asked),
        }
        if column.entry.trained:
            entry["training"] = identity(asked, revision=column.entry.revision)
            entry["state"] = cfg.digest(state_of(column))
        found[name] = entry
    return found
