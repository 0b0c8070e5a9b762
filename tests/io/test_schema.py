"""Reading foreign values into dataclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad.io import schema
from zsad.io.schema import SchemaError
from zsad.types import Boxes


@dataclass(frozen=True)
class Part:
    size: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thing:
    kind: Literal["good", "bad"] = field(metadata={"key": "class"})
    parts: Sequence[Part] = ()
    table: Mapping[str, Part | None] = field(default_factory=dict)
    place: str = field(default="", metadata={"key": ""})
    count: int = 0

    def __post_init__(self) -> None:
        if len(self.parts) > 2:
            raise ValueError("parts must not be more than two")


def test_nested_groups_lists_and_renamed_keys() -> None:
    found = schema.read(
        Thing, {"class": "good", "parts": [{"size": 2}], "table": {"a": None, "b": {"size": 0.5}}}
    )
    assert found == Thing("good", [Part(2.0)], {"a": None, "b": Part(0.5)})
    assert isinstance(found.parts[0].size, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "good"}, r"unknown key 'kind'; valid: class, count, parts, table"),
        ({"class": "good", "place": "x"}, "unknown key 'place'"),
        ({}, "key 'class' is missing; add it"),
        ({"class": "god"}, r"class='god' is not one of: good, bad \(did you mean 'good'\?\)"),
        ({"class": "good", "parts": [{"size": "2"}]}, r"parts\[0\]\.size='2' must be a number"),
        ({"class": "good", "parts": [{}]}, r"key 'parts\[0\]\.size' is missing"),
        ({"class": "good", "parts": "ab"}, "parts='ab' must be a list, not str"),
        ({"class": "good", "table": {"a": 3}}, "table.a=3 must be a group of keys, not int"),
        ({"class": "good", "parts": [{"size": 1}] * 3}, "^parts must not be more than two$"),
        ({"class": "good", "parts": [{"size": 10**400}]}, "must be a finite number"),
        ({"class": "good", "count": 2**63}, "count=9223372036854775808: far too large"),
        ([], "must be a group of keys, not list"),
        (None, "must be a group of keys, not NoneType"),
    ],
)
def test_what_does_not_fit_names_its_key(values: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        schema.read(Thing, values)
    assert "\n" not in str(caught.value)


def test_the_origin_may_depend_on_the_key() -> None:
    origins = {"class": "line 1", "parts[0].size": "line 2"}
    for values, place in (({"class": 1}, "line 1"), ({"parts": [{"size": ""}]}, "line 2")):
        with pytest.raises(SchemaError, match=rf"\({place}\)"):
            schema.read(Thing, values, origin=lambda key, message: origins[key])


def test_a_check_asks_for_nothing_and_returns_what_is_given() -> None:
    assert schema.check(Thing, {}) == {}
    assert schema.check(Thing, {"parts": [{"size": 1}]}) == {"parts": [{"size": 1.0}]}
    with pytest.raises(SchemaError, match="unknown key 'sise'"):
        schema.check(Part, {"sise": 1})


def test_others_are_passed_over_only_on_request() -> None:
    assert schema.read(Part, {"size": 1, "more": 2}, others=True) == Part(1.0)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["class", "parts", "table", "size", "names"]), inner)
    ),
    max_leaves=12,
)


@given(_json)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        found = schema.read(Thing, value)
    except SchemaError:
        return
    assert found.kind in ("good", "bad")
    assert all(isinstance(p.size, float) for p in found.parts)


# ---------------------------------------------------------------------------------- users
def test_boxes_are_read_from_lists_and_from_arrays() -> None:
    import numpy as np
    import torch

    lists = {"boxes": [[0.5, 0.5, 1, 1]], "scores": [0.25], "phrases": ["a crack"]}
    arrays = {
        "boxes": np.float32([[0.5, 0.5, 1, 1]]),
        "scores": [torch.tensor(0.25)],
        "phrases": ("a crack",),
        "more": "is passed over",
    }
    assert Boxes.from_dict(lists) == Boxes.from_dict(arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": ["high"]}, r"scores\[0\]='high' must be a number"),
        ({"phrases": [3]}, r"phrases\[0\]=3 must be text"),
        ({"boxes": [[math.nan, 0, 0, 0]]}, r"boxes\[0\]\[0\]=nan must be a finite number"),
        ({"boxes": [[0.5, 0.5, 1]]}, "is not \\[cx, cy, w, h\\]"),
        ({"scores": []}, "1 box, 0 scores and 1 phrase"),
    ],
)
def test_boxes_that_are_none_are_refused(change: dict[str, Any], message: str) -> None:
    whole = {"boxes": [[0.5, 0.5, 1, 1]], "scores": [0.25], "phrases": ["a crack"]}
    with pytest.raises(ValueError, match=message):
        Boxes.from_dict({**whole, **change})
    for missing in whole:
        with pytest.raises(ValueError, match=f"key '{missing}' is missing"):
            Boxes.from_dict({k: v for k, v in whole.items() if k != missing})
