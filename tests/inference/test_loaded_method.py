"""A loaded method leaves torch as it found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import zsad
from zsad.inference.loaded_method import LoadedMethod
from zsad.on_device import algorithms
from zsad.scoring import Scorer

Seen = list[bool]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Whether torch took deterministic algorithms, for every group of pictures that is scored."""
    found: Seen = []
    score = Scorer.score

    def watched(self: Scorer[Any], *args: Any, **rest: Any) -> Any:
        for one in score(self, *args, **rest):
            found.append(torch.are_deterministic_algorithms_enabled())
            yield one

    monkeypatch.setattr(Scorer, "score", watched)
    return found


def load(*overrides: str) -> LoadedMethod:
    return zsad.load_method(
        "clip", backbone="zsad-tiny", image_size=64, device="cpu", overrides=overrides
    )


def pictures(count: int = 3) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(3)
    return [random.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(count)]


ENTRIES: dict[str, Callable[[LoadedMethod], Any]] = {
    "predict": lambda method: method.predict(pictures()),
    "calibrate": lambda method: method.calibrate(pictures()),
    "predict_tensor": lambda method: method.predict_tensor(torch.zeros(2, 3, 64, 64)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_deterministic_algorithms_end_with_the_call(entry: str, seen: Seen) -> None:
    with algorithms(deterministic=False):
        ENTRIES[entry](load("run.deterministic=true"))
        assert set(seen) == {True}
        assert not torch.are_deterministic_algorithms_enabled()
        seen.clear()
        ENTRIES[entry](load())  # who asks for nothing gets what torch does by itself
        assert set(seen) == {False}


def test_between_two_predictions_of_a_stream_torch_is_the_callers(seen: Seen) -> None:
    method = load("run.deterministic=true", "run.batch_size=1")
    with algorithms(deterministic=False):
        stream = method.stream(pictures())
        for _ in range(2):
            next(stream)
            assert not torch.are_deterministic_algorithms_enabled()
        del stream  # the third is never asked for
        assert set(seen) == {True}
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_error_ends_deterministic_algorithms_too() -> None:
    method = load("run.deterministic=true")
    with algorithms(deterministic=False):
        with pytest.raises(zsad.errors.DataError):
            method.predict(["nowhere.png"])
        assert not torch.are_deterministic_algorithms_enabled()
