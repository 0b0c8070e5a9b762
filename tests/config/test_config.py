"""Layers, schemas and the errors they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsad import config as cfg
from zsad.errors import RequestError


@dataclass(frozen=True)
class Inner:
    depth: int = 9
    rate: float = 1e-3


@dataclass(frozen=True)
class Schema:
    name: str = "x"
    on: bool = False
    mode: Literal["off", "mean", "sum"] = "mean"
    level: Literal[1, 2] = 1
    layers: tuple[int, ...] = (6, 12)
    pair: tuple[int, str] = (1, "a")
    words: list[str] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)
    weights: str | None = None
    either: int | str = 0
    anything: Any = None
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if self.inner.depth < 0:
            raise ValueError("inner.depth must not be negative")


# ------------------------------------------------------------------------------- dot-list
def test_dotlist_nests_and_parses_values_as_yaml() -> None:
    items = ["m.lr=1e-5", "m.inner.depth=4", "m.on=true", "m.layers=[6,12]", "m.w=null", "m.t=a=b"]
    assert cfg.parse_dotlist(items) == {
        "m": {
            "lr": 1e-5,
            "inner": {"depth": 4},
            "on": True,
            "layers": [6, 12],
            "w": None,
            "t": "a=b",
        }
    }


@pytest.mark.parametrize("item", ["winclip", "=1", ".a=1", "a.=1", "a..b=1", " =1"])
def test_dotlist_without_key_or_value_is_refused(item: str) -> None:
    with pytest.raises(RequestError, match="is not of the form KEY=VALUE"):
        cfg.parse_dotlist([item])


@pytest.mark.parametrize("item", ["a.b=[1", "a.b={", "a=${nothing}"])
def test_unreadable_dotlist_is_one_line(item: str) -> None:
    with pytest.raises(RequestError, match="cannot be read") as caught:
        cfg.parse_dotlist([item])
    assert "\n" not in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_the_dotlist(value: float) -> None:
    built = cfg.build(Inner, cfg.parse_dotlist([f"rate={value!r}"]), origin="test")
    assert built.rate == value


# ----------------------------------------------------------------------------------- yaml
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("3", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=reason) as caught:
        cfg.read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.yaml: no such file"):
        cfg.read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(RequestError, match="cannot be read"):
        cfg.read_yaml(tmp_path)


def test_scientific_notation_without_a_dot_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("rate: 1e-5\n")  # a plain YAML 1.1 reader gives text
    assert cfg.read_yaml(tmp_path / "x.yaml") == {"rate": 1e-5}


# ---------------------------------------------------------------------------------- merge
def test_later_layers_win_and_lists_are_replaced_whole() -> None:
    first = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    merged = cfg.merge(first, {"a": {"y": [3]}, "b": {"c": 2}})
    assert merged == {"a": {"x": 1, "y": [3]}, "b": {"c": 2}}
    assert first == {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert cfg.merge() == {}


_trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=8
)
_mappings = st.dictionaries(st.sampled_from("abc"), _trees)


@given(_mappings, _mappings)
def test_merging_again_changes_nothing(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert cfg.merge(cfg.merge(a, b), b) == cfg.merge(a, b)
    assert cfg.merge({}, a) == a


@given(st.text(alphabet="$\\{}\0!?ab:. ", max_size=12) | st.just("???"))
def test_no_text_means_anything_to_the_merge(text: str) -> None:
    """Interpolations are resolved where they are written, and nowhere else."""
    assert cfg.merge({"a": {"b": text}}, {"c": [text]}) == {"a": {"b": text}, "c": [text]}
    found = cfg.resolve(Schema, [("x", {"name": "other"}), ("y", {"name": text})])
    assert found.value.name == text


def test_an_interpolation_is_resolved_within_its_own_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_TEST_NAME", "from outside")
    path = tmp_path / "x.yaml"
    path.write_text("name: ${oc.env:ZSAD_TEST_NAME}\nweights: ${name}\n")
    assert cfg.read_yaml(path) == {"name": "from outside", "weights": "from outside"}
    path.write_text("weights: ${name}\n")  # a key of another layer
    with pytest.raises(RequestError, match=r"x\.yaml: not valid YAML"):
        cfg.read_yaml(path)


# ---------------------------------------------------------------------------------- resolve
LAYERS = [
    ("defaults", {"name": "a", "inner": {"depth": 1, "rate": 0.5}, "table": {"k": 1, "l": 2}}),
    ("preset", {"inner": {"rate": 0.25}, "layers": [1]}),
    ("file", {"table": {"k": 3}, "weights": "w.pt"}),
    ("line", {"inner": {"depth": 2}, "weights": None}),
]


def test_every_key_knows_the_layer_that_set_it() -> None:
    found = cfg.resolve(Schema, LAYERS)
    assert found.value == Schema(
        name="a", layers=(1,), table={"k": 3.0, "l": 2.0}, inner=Inner(depth=2, rate=0.25)
    )
    assert {k: o for k, o in found.origins.items() if o != "schema"} == {
        "name": "defaults",
        "inner.rate": "preset",
        "layers": "preset",
        "table.k": "file",
        "table.l": "defaults",
        "weights": "line",
        "inner.depth": "line",
    }
    assert found.origin("table") == "file, defaults"
    assert (found.origin("inner.depth"), found.origin("on")) == ("line", "schema")
    with pytest.raises(KeyError):
        found.origin("dept")


def test_an_error_names_the_layers_of_the_keys_in_it() -> None:
    layers = [*LAYERS, ("last", {"inner": {"depth": -1}})]
    with pytest.raises(RequestError, match=r"^m: inner\.depth must not be negative \(last\)$"):
        cfg.resolve(Schema, layers, prefix="m.")
    hidden = [("first", {"name": 3}), ("second", {"name": "x"})]  # a wrong value that is hidden
    with pytest.raises(RequestError, match=r"m\.name=3 \(first\) must be text"):
        cfg.resolve(Schema, hidden, prefix="m.")


def test_the_defaults_of_a_group_are_a_layer_too() -> None:
    @dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner(depth=3)
        pair: tuple[int, str] | None = None
        many: list[int] | dict[str, int] = field(default_factory=list)  # not OmegaConf's

    for kind in (Outer, Schema):
        found = cfg.resolve(kind, [("x", {"inner": {"rate": 2}})])
        assert found.value == kind(inner=Inner(depth=kind().inner.depth, rate=2.0))
        assert found.origin("inner.depth") == "schema"


_layer = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=3),
        "table": st.dictionaries(st.sampled_from("kl"), st.floats(-1, 1), max_size=2),
        "layers": st.lists(st.integers(0, 9), max_size=3),
        "weights": st.none() | st.text(max_size=3),
        "inner": st.fixed_dictionaries(
            {}, optional={"depth": st.integers(0, 9), "rate": st.integers(0, 9)}
        ),
    },
)


@given(st.lists(_layer, max_size=4))
def test_the_value_of_a_key_is_that_of_its_origin(layers: list[dict[str, Any]]) -> None:
    named = [(f"layer {i}", values) for i, values in enumerate(layers)]
    found = cfg.resolve(Schema, named)
    flat = cfg.flat(cfg.to_dict(found.value))
    plain = cfg.flat(cfg.to_dict(Schema()))
    for key, origin in found.origins.items():
        # an empty group is set by nobody in particular
        if origin == "schema":
            assert flat[key] == plain.get(key, flat[key])
        else:
            last = cfg.flat(dict(named)[origin])
            assert flat[key] == last[key]
            later = named[int(origin.split()[1]) + 1 :]
            assert all(key not in cfg.flat(values) or flat[key] == {} for _, values in later)


# ------------------------------------------------------------------------------------ build
def test_every_kind_of_field() -> None:
    built = cfg.build(
        Schema,
        {
            "on": True,
            "mode": "sum",
            "level": 2,
            "layers": [1, 2, 3],
            "pair": [3, "b"],
            "words": ["u", "v"],
            "table": {"k": 1},
            "weights": None,
            "either": "text",
            "anything": [1, {"a": 2}],
            "inner": {"rate": 2},
        },
        origin="test",
    )
    assert built == Schema(
        on=True,
        mode="sum",
        level=2,
        layers=(1, 2, 3),
        pair=(3, "b"),
        words=["u", "v"],
        table={"k": 1.0},
        either="text",
        anything=[1, {"a": 2}],
        inner=Inner(rate=2.0),
    )
    assert isinstance(built.inner.rate, float)
    assert isinstance(built.table["k"], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "x"}, r"unknown key 'm\.nmae' \(the file\) \(did you mean 'name'\?\)"),
        ({"inner": {"dept": 1}}, r"unknown key 'm\.inner\.dept' .*did you mean 'depth'"),
        ({"name": 3}, r"m\.name=3 \(the file\) must be text, not int"),
        ({"on": 1}, r"m\.on=1 .* must be true or false"),
        ({"inner": {"depth": 1.5}}, r"m\.inner\.depth=1\.5 .* must be a whole number"),
        ({"inner": {"depth": True}}, "must be a whole number"),
        ({"inner": {"rate": "fast"}}, "must be a number"),
        ({"inner": 3}, "must be a group of keys"),
        ({"mode": "man"}, r"m\.mode='man' .* is not one of: off, mean, sum \(did you mean 'mean'"),
        ({"level": True}, "is not one of: 1, 2"),
        ({"level": 1.0}, "is not one of: 1, 2"),
        ({"mode": [1]}, "is not one of"),
        ({"layers": 6}, "must be a list"),
        ({"layers": [6, "x"]}, r"m\.layers\[1\]='x'"),
        ({"pair": [1]}, "a list of 2 values"),
        ({"table": {"k": "v"}}, r"m\.table\.k='v'"),
        ({"table": [1]}, "must be a mapping"),
        ({"weights": 3}, r"m\.weights=3"),
        ({"either": 1.5}, r"m\.either=1\.5"),
        ({"inner": {"depth": -1}}, r"m: inner\.depth must not be negative \(the file\)"),
    ],
)
def test_a_wrong_value_names_key_origin_and_way_out(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        cfg.build(Schema, values, origin="the file", prefix="m.")
    assert "\n" not in str(caught.value)


def test_a_key_without_default_must_be_given() -> None:
    @dataclass
    class Needs:
        size: int

    assert cfg.build(Needs, {"size": 3}, origin="x").size == 3
    with pytest.raises(RequestError, match=r"key 'size' is missing \(x\)"):
        cfg.build(Needs, {}, origin="x")


@pytest.mark.parametrize(("bare", "word"), [("off", "off"), ("no", "no"), ("none", "none")])
def test_bare_yaml_words_reach_literals(bare: str, word: str) -> None:
    @dataclass
    class Words:
        off: Literal["off", "sum"] = "sum"
        none: Literal["none", "sum"] = "sum"
        no: Literal["no", "sum"] = "sum"

    built = cfg.build(Words, cfg.parse_dotlist([f"{word}={bare}"]), origin="test")
    assert getattr(built, word) == word


# --------------------------------------------------------------------------- the rest
def test_settings_round_trip_and_digest_ignores_order() -> None:
    settings = cfg.build(cfg.Settings, {"metrics": {"fpr_limit": 0.05}}, origin="test")
    again = cfg.build(cfg.Settings, cfg.to_dict(settings), origin="test")
    assert again == settings
    assert cfg.digest({"a": 1, "b": [2.5]}) == cfg.digest({"b": [2.5], "a": 1})
    assert cfg.digest({"a": 1}) != cfg.digest({"a": 2})
    assert cfg.digest({}) == "44136fa355b3"  # SHA-256 of "{}"
