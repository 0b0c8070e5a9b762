"""Figures of a training travel in its checkpoint and arrive in the records made with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.runner.conftest import SIZE
from zsad import backbones, checkpoints, registry
from zsad.method import new_method
from zsad.results.store import ResultStore

Bench = Callable[..., dict[str, Any]]
SHARE = {"knowledge_active_share": 0.25}


@pytest.mark.parametrize("facts", [SHARE, {}], ids=["facts", "as before"])
def test_facts_reach_the_record(
    facts: dict[str, Any], bench: Bench, weights: Path, tmp_path: Path
) -> None:
    backbone = backbones.load("file", weights=weights, image_size=SIZE, device="cpu")
    entry = registry.method("kanoclip")
    method = new_method(entry, entry.resolve(), backbone.info)
    trained_on = checkpoints.TrainedOn("elsewhere", "f", "test", uids=("a.png",))
    meta = checkpoints.describe(method, trained_on=trained_on, facts=facts)
    path = checkpoints.save(tmp_path / "k.safetensors", method.trained_state(), meta)
    with safe_open(path, framework="pt") as file:  # what has none looks as it always did
        assert ('"facts"' in file.metadata()["zsad"]) == bool(facts)
    document = bench("kanoclip", overrides=[f"kanoclip.checkpoint={path}"])
    assert not document["failed"]
    records = list(ResultStore(tmp_path / "results").records())
    assert len(records) == 2
    for record in records:
        told = dict(record.info["method_info"])
        told.pop("own_readings", None)  # of the config, not of the training
        assert told == facts


def test_the_active_share_counts_steps_with_knowledge() -> None:
    entry = registry.method("kanoclip")
    info = backbones.load("zsad-tiny", device="cpu").info
    method = new_method(entry, entry.resolve(), info)
    history = [
        {"steps": 4, "knowledge_known": 0.5, "knowledge_active": 0.25},  # two of four, one active
        {"steps": 2, "knowledge_known": 1.0, "knowledge_active": 0.5},
    ]
    assert method.training_facts(history) == {"knowledge_active_share": 0.5}
    assert method.training_facts([{"steps": 3}]) == {}
