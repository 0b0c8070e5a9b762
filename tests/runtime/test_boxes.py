"""Boxes of a package: files that are no such thing, and pictures by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.errors import DataError, RequestError
from zsad.grounding.file import BoxFile
from zsad.runtime.boxes import (
    BoxAnswers,
    BoxRule,
    coverage,
    picture_digest,
    read_answers,
    shares,
)

ONE = {"boxes": [[0.5, 0.5, 0.2, 0.2]], "scores": [0.5], "phrases": ["crack"]}


def test_names_are_those_of_predict(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    for name in ("far/a.png", "a.png", picture_digest(picture)):
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps({name: ONE}), encoding="utf-8-sig")  # as editors of Windows do
        found = read_answers(file).of("far/a.png", picture)
        right = BoxFile.read(file).find(["far/a.png", "a.png", picture_digest(picture)])
        assert found is not None
        assert right is not None
        assert (found.boxes, found.scores, found.phrases) == (
            right.boxes,
            right.scores,
            right.phrases,
        )
    assert BoxAnswers({}).of("", picture) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 5000, "too many brackets"),
        ("[]", "must map image names"),
        (json.dumps({"a": []}), "'a' needs lists boxes"),
        (json.dumps({"a": ONE | {"scores": []}}), "one of each per box"),
        (json.dumps({"a": ONE | {"scores": [True]}}), "True is not a number"),
        (json.dumps({"a": ONE | {"boxes": [[0, 0, 1]]}}), "fractions of the image"),
        (json.dumps({"a": ONE | {"boxes": [[0, 0, 1, 9]]}}), "fractions of the image"),
        (json.dumps({"a": ONE | {"phrases": [1]}}), "phrases are texts"),
    ],
)
def test_what_is_no_file_of_boxes_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_text(content)
    with pytest.raises(RequestError, match=rf"--boxes .*b\.json.*{message}") as error:
        read_answers(file)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"b\.json") as same:  # of `zsad bench`, by the same rules
        BoxFile.read(file)
    assert str(same.value) == str(error.value).removeprefix("--boxes ")
    with pytest.raises(RequestError, match="cannot be read"):
        read_answers(tmp_path / "none.json")


@pytest.mark.parametrize("change", [{"arithmetic": "other"}, {"area": float("nan")}, {"asked": 3}])
def test_a_rule_that_is_none_is_refused(change: dict[str, Any]) -> None:
    told = {"asked": ["a"], "box_threshold": 0.2, "area": 0.5, "phrase_filter": True}
    assert BoxRule.of({**told, "arithmetic": "exact"}).asked == ("a",)
    with pytest.raises((ValueError, TypeError)):
        BoxRule.of({**told, "arithmetic": "exact", **change})


def test_shares_and_coverage() -> None:
    assert shares(None).sum() == pytest.approx(1)
    assert shares(4).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    half = coverage([[0.5, 0.5, 0.5, 1.0]], 4, 4, "exact")
    assert half.tolist() == [[0, 1, 1, 0]] * 4
    assert not coverage([[0.5, 0.5, 0.0, 0.0]], 4, 4, "exact").any()
