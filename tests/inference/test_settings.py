"""What a call says about backbone, run and method: the words of ``zsad bench``."""

from __future__ import annotations

from typing import Any

import pytest

from zsad.errors import RequestError
from zsad.inference.settings import split

NAMED = {"name": "vit-l-14-336", "weights": None, "image_size": None, "precision": "auto"}


@pytest.mark.parametrize(
    "overrides",
    [
        ["backbone.image_size=64", "run.batch_size=2", "clip.temperature=0.5"],
        ["backbone.image_size=64", "run.batch_size=2", "temperature=0.5"],
        {"backbone": {"image_size": 64}, "run": {"batch_size": 2}, "temperature": 0.5},
        {"backbone.image_size": 64, "run.batch_size": 2, "clip": {"temperature": 0.5}},
    ],
)
def test_every_form_says_the_same(overrides: Any) -> None:
    settings, own = split("clip", overrides, NAMED)
    assert (settings.value.backbone.image_size, settings.value.run.batch_size) == (64, 2)
    assert settings.value.backbone.name == "vit-l-14-336"
    assert own == {"temperature": 0.5}


def test_bits_of_deep_pictures() -> None:
    settings, own = split("clip", ["data.folder.bits=12"], NAMED)
    assert settings.value.data.folder.bits == 12
    assert own == {}


def test_a_named_value_and_its_key_may_agree_but_not_differ() -> None:
    settings, _ = split("clip", ["backbone.precision=bf16"], {**NAMED, "precision": "bf16"})
    assert settings.value.backbone.precision == "bf16"
    with pytest.raises(
        RequestError, match=r"backbone\.precision=bf16 and --precision fp16 contradict"
    ):
        split("clip", ["backbone.precision=bf16"], {**NAMED, "precision": "fp16"})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.workers=2", "data.workers: changes nothing"),
        ("data.folder.class_name=nut", "data.folder.class_name: changes nothing"),
        ("data.folder.bit=12", "unknown key 'data.folder.bit'"),
        ("data.folder.bits=40", r"bits=40 must lie in 1\.\.32"),
        ("metrics.mode=exact", "metrics.mode: changes nothing"),
        ("ray.cpus=2", "ray.cpus: changes nothing"),
        ("run.feature_cache_gb=1", "run.feature_cache_gb: changes nothing"),
        ("run.batchsize=1", "unknown key 'run.batchsize'.*did you mean 'batch_size'"),
        ("run.batch_size=-1", "batch_size=-1 must be 0"),
        ("backbone.precision=fp8", "fp8"),
        ("backbone=zsad-tiny", "backbone"),
        ("winclip.shots=1", "'winclip.shots' is set but the method is clip"),
        ("clpi.temperature=1", "unknown key 'clpi.temperature' .did you mean 'clip'"),
        ("clip=1", "sets no key of method clip"),
    ],
)
def test_what_changes_nothing_is_refused(word: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        split("clip", [word], NAMED)
