"""The checkpoint cache: found by what a training depends on, trained where missing, guarded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zsad import checkpoints, registry
from zsad.backbones import Backbone
from zsad.config import Settings
from zsad.data.index import DatasetIndex
from zsad.errors import RequestError
from zsad.io import scratch_folder
from zsad.training import ensure_trained, leaks
from zsad.training.engine import CACHE
from zsad.training.feature_store import SCRATCH
from zsad.training.leaks import guard

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


def test_what_was_trained_on_is_never_evaluated(arguments: dict[str, Any], tmp_path: Path) -> None:
    samples, index = arguments["samples"], arguments["index"]
    (result,) = ensure_trained(wanted("anomalyclip"), **{**arguments, "samples": samples[:15]})
    meta = checkpoints.read_meta(result.checkpoint)
    assert meta is not None
    with pytest.raises(RequestError, match="trained on 5 of the images"):
        guard(meta, index, samples[10:])
    assert guard(meta, index, samples[15:]) == leaks.BY_CONTENT
    assert guard(None, index, samples) == leaks.UNKNOWN  # an authors' file that nobody knows
    # Copies under other names, in another dataset: the same file, and one saved anew.
    copy, anew = tmp_path / "copy.png", tmp_path / "anew.bmp"
    copy.write_bytes(Path(samples[3].image).read_bytes())
    Image.open(samples[4].image).save(anew)
    for path, how, known in ((copy, "the same file", 3), (anew, "the same pixels", 4)):
        other = replace(samples[15], image=str(path), uid=path.name)
        with pytest.raises(RequestError) as caught:
            guard(meta, renamed(index, "elsewhere"), [samples[16], other])
        assert f"{path.name} is {samples[known].uid} of 'swatches' ({how})" in str(caught.value)
    # What has no hashes (trained before there were any) is compared by name, and it is said.
    older = replace(meta, contents=())
    assert guard(older, renamed(index, "elsewhere"), samples) == leaks.BY_NAME
    with pytest.raises(RequestError, match="trained on 15 of the images"):
        guard(older, index, samples)


def renamed(index: DatasetIndex, name: str) -> DatasetIndex:
    return replace(index, spec=replace(index.spec, name=name))
