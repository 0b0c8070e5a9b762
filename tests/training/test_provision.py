"""The checkpoint cache: found by what a training depends on, trained where missing, guarded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError
from zsad.io import scratch_folder
from zsad.training import ensure_trained
from zsad.training.engine import CACHE
from zsad.training.feature_store import SCRATCH
from zsad.training.provision import guard

QUICK = {"train": {"epochs": 1}, "deep": {"depth": 2}}


def wanted(*methods: str, **more: Any) -> list[Any]:
    entries = [registry.method(m) for m in methods]
    return [(e, e.resolve(("test", QUICK | more))) for e in entries]


@pytest.fixture
def arguments(
    index: DatasetIndex, backbone: Backbone, settings: Settings, tmp_path: Path
) -> dict[str, Any]:
    return {
        "index": index,
        "samples": index.samples,
        "backbone": backbone,
        "settings": settings,
        "seed": 0,
        "root": tmp_path,
    }


def test_it_trains_what_is_missing_and_finds_what_is_there(arguments: dict[str, Any]) -> None:
    (first,) = ensure_trained(wanted("anomalyclip"), **arguments)
    assert not first.reused
    both = ensure_trained(wanted("anomalyclip", "faprompt"), **arguments)
    assert [r.method for r in both] == ["anomalyclip", "faprompt"]
    assert [r.reused for r in both] == [True, False]
    assert both[0].checkpoint == first.checkpoint
    assert first.checkpoint.parent == arguments["root"] / "checkpoints" / "anomalyclip"


def test_features_that_a_killed_training_left_go_though_nothing_is_trained(
    arguments: dict[str, Any],
) -> None:
    """It may have been killed between its last checkpoint and tidying up."""
    ensure_trained(wanted("anomalyclip"), **arguments)
    cache = arguments["root"] / "checkpoints" / CACHE
    assert not cache.exists()
    (cache / f"{SCRATCH}dead").mkdir(parents=True)
    (cache / f"{SCRATCH}dead" / "features").write_bytes(b"much")
    with scratch_folder(cache, SCRATCH) as used:  # a living process' own
        (cache / f"{SCRATCH}dead").mkdir()
        ensure_trained(wanted("anomalyclip"), **arguments)
        assert list(cache.iterdir()) == [used]
    ensure_trained(wanted("anomalyclip"), **arguments)
    assert not cache.exists()


def test_keys_that_only_inference_reads_share_a_checkpoint(arguments: dict[str, Any]) -> None:
    (first,) = ensure_trained(wanted("anomalyclip"), **arguments)
    (same,) = ensure_trained(wanted("anomalyclip", post={"sigma": 1.0}), **arguments)
    (other,) = ensure_trained(wanted("anomalyclip", loss={"pixel_weight": 1.0}), **arguments)
    assert same.reused
    assert same.checkpoint == first.checkpoint
    assert not other.reused
    twice = ensure_trained(
        [*wanted("anomalyclip"), *wanted("anomalyclip", post={"sigma": 1.0})],
        **{**arguments, "seed": 5},
    )
    assert twice[0].checkpoint == twice[1].checkpoint


def test_seed_and_data_are_part_of_the_name(arguments: dict[str, Any]) -> None:
    (first,) = ensure_trained(wanted("anomalyclip"), **arguments)
    (seed,) = ensure_trained(wanted("anomalyclip"), **{**arguments, "seed": 1})
    fewer = arguments["samples"][2:]
    (data,) = ensure_trained(wanted("anomalyclip"), **{**arguments, "samples": fewer})
    assert len({first.checkpoint, seed.checkpoint, data.checkpoint}) == 3


def test_what_was_trained_on_is_never_evaluated(arguments: dict[str, Any]) -> None:
    samples = arguments["samples"]
    (result,) = ensure_trained(wanted("anomalyclip"), **{**arguments, "samples": samples[:15]})
    meta = checkpoints.read_meta(result.checkpoint)
    with pytest.raises(RequestError, match="trained on 5 of the images"):
        guard(meta, "swatches", samples[10:])
    guard(meta, "swatches", samples[15:])
    guard(meta, "another-dataset", samples)
    guard(None, "swatches", samples)  # an official file does not say
