"""The names that programs rely on: Python's surface, and what runs leave on disk."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import zsad
from zsad import runtime
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.prediction import Prediction

LOADING = "name backbone weights image_size checkpoint preset device overrides"
BENCH = (
    "methods datasets protocol backbone data_root results seeds limit launcher device fresh "
    "dry_run offline untrained plugins trained_on overrides"
)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (zsad.bench, BENCH),
        (zsad.evaluate, "maps masks image_scores labels fpr_limit mode"),
        (zsad.load_method, LOADING),
        (zsad.predict, "method pictures class_name out save to ignore calibrate"),
        (zsad.predict_iter, "method pictures class_name out save to ignore calibrate"),
        (zsad.export, "method class_name out format references"),
        (LoadedMethod.predict, "self images class_name boxes"),
        (LoadedMethod.predict_tensor, "self images class_names boxes references kinds domains"),
        (LoadedMethod.losses, "self images masks labels class_names"),
        (runtime.load, "path"),
    ],
)
def test_functions_take_what_programs_give_them(function: Callable[..., Any], names: str) -> None:
    known = list(inspect.signature(function).parameters)
    assert set(names.split()) <= set(known)
    first = names.split()[:2]  # by position, too
    assert known[: len(first)] == first


def test_predict_says_that_it_returns_a_list() -> None:
    """And takes, and says of its parameters, what `predict_iter` does."""
    of_one, of_all = inspect.signature(zsad.predict_iter), inspect.signature(zsad.predict)
    assert of_all.parameters == of_one.parameters
    assert of_all.return_annotation == "list[Prediction]"
    hints = get_type_hints(zsad.predict, localns={"Prediction": Prediction})
    assert hints["return"] == list[Prediction]


def test_a_run_leaves_what_programs_read(tmp_path: Path) -> None:
    words: dict[str, Any] = {"backbone": "zsad-tiny", "device": "cpu", "overrides": SMALL}
    document = zsad.bench("clip", "synthetic", **words, limit=2, results=tmp_path)
    assert {"results_dir", "cells", "summary", "failed", "counters"} <= set(document)
    wanted = "method dataset category seed metrics undefined n_normal n_anomalous seconds"
    assert all(set(wanted.split()) <= set(cell) for cell in document["cells"])
    counters = document["counters"]
    assert {"images", "text_tokens"} <= set(counters)
    assert counters["image_encoder_forwards"] == counters["image_forwards"] == 8
    assert (tmp_path / "manifest.json").is_file()
    assert len(list(tmp_path.glob("cells/clip/synthetic/0/*.json"))) == len(document["cells"]) == 8
    assert list(tmp_path.glob("scores/clip/synthetic/**/*.parquet"))


SMALL = ("backbone.image_size=64",)
