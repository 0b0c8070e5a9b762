"""What a package says of itself is of the right kind, or the package is refused."""

from __future__ import annotations

from typing import Any

import pytest

from zsad.runtime.boxes import BoxRule
from zsad.runtime.package import limits_of

RULE = {
    "asked": ["bolt"], "box_threshold": 0.1, "area": 0.9, "phrase_filter": True,
    "arithmetic": "exact",
}  # fmt: skip


def test_thresholds_are_numbers() -> None:
    found = limits_of({"image": 0.5, "pixel": None, "rule": "given", "contrast": 2})
    assert (found.image, found.pixel, found.contrast) == (0.5, None, 2)


@pytest.mark.parametrize("value", ["0.5", True, [0.5], {}, float("nan"), 10**400, "x"])
@pytest.mark.parametrize("name", ["image", "pixel", "contrast", "rise", "unknown"])
def test_thresholds_that_are_none_are_refused(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        limits_of({"image": None, "pixel": None, name: value})


@pytest.mark.parametrize("value", ["0.5", True, None, float("inf")])
@pytest.mark.parametrize("name", ["box_threshold", "area"])
def test_thresholds_of_boxes_are_numbers(name: str, value: Any) -> None:
    assert BoxRule.of(RULE).area == 0.9
    with pytest.raises((TypeError, ValueError)):
        BoxRule.of({**RULE, name: value})
