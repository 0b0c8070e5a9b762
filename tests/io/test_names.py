"""Foreign names as file names: one component, short enough, different ones different."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import NAMES, is_plain
from zsad.io import atomic_write_text, dump_json, names, read_json
from zsad.io.names import (
    LONGEST,
    LONGEST_PICTURE,
    is_refused_by_windows,
    plain_path,
    readable_name,
    safe_name,
    shortened,
)

ANY = st.text(st.characters(codec=None), min_size=1, max_size=300)


def test_known_names() -> None:
    assert safe_name("metal nut@2 (a)") == "metal nut@2 (a)"
    assert safe_name("ü/..") == "%C3%BC%2F.."
    assert safe_name("..") == "%2E."
    assert safe_name("caf\udce9") == "caf%E9"
    assert readable_name("größe 图 [1] 100%") == "größe 图 [1] 100%"
    assert readable_name("a\x1b\u202e<b>:%1B") == "a%1B%E2%80%AE%3Cb%3E%3A%251B"
    assert readable_name("caf\udce9") == "caf%E9"
    assert readable_name("..") == "%2E%2E"
    assert readable_name("a\u3000b\u1680") == "a\u3000b%E1%9A%80"  # a blank that nobody types


@given(st.text(min_size=1, max_size=60))
def test_names_that_were_stored_before_keep_their_place(name: str) -> None:
    """Results of earlier versions lie under what ``quote`` made of their names."""
    expected = quote(name, safe=" +,=()[]@")
    if len(expected) <= LONGEST:
        assert safe_name(name).replace("%2E", ".", 1) == expected.replace("%2E", ".", 1)


@given(st.lists(ANY, unique=True, max_size=30))
def test_different_names_stay_different(found: list[str]) -> None:
    for function in (safe_name, readable_name):
        assert len({function(name) for name in found}) == len(found)


@given(ANY)
def test_a_name_is_one_short_component_that_acts_on_nothing(name: str) -> None:
    for function, longest in ((safe_name, LONGEST), (readable_name, LONGEST_PICTURE)):
        found = function(name)
        assert len(found.encode("utf-8")) <= longest
        assert is_plain(found)
        assert Path(found).name == found
        assert found not in (".", "..")
    assert safe_name(name).isascii()


def test_what_is_shortened_is_called_as_nothing_else() -> None:
    long, other = "图" * 200, "图" * 201
    assert len({shortened(long, 100), shortened(other, 100), shortened("图" * 33, 100)}) == 3
    short = readable_name(long)
    assert readable_name(short) != short  # somebody's file of that very name
    assert safe_name(safe_name(long)) != safe_name(long)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_texts_and_file_names_of_any_kind_can_be_written(name: str, tmp_path: Path) -> None:
    path = atomic_write_text(tmp_path / name, name)
    assert path.read_bytes().decode("utf-8")
    assert os.listdir(tmp_path) == [name]
    text = dump_json({"name": name})
    assert is_plain(text)
    atomic_write_text(tmp_path / "a.json", text)
    assert read_json(tmp_path / "a.json") == {"name": name}


def test_a_path_without_dots_is_the_same_place(tmp_path: Path) -> None:
    deep = tmp_path / "elsewhere" / "deep"
    deep.mkdir(parents=True)
    (tmp_path / "link").symlink_to(deep)
    assert plain_path(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert plain_path(tmp_path / "link" / "x") == tmp_path / "link" / "x"
    # As the system reads it: the folder above the one that the link leads to.
    assert plain_path(tmp_path / "link" / ".." / "x") == tmp_path / "elsewhere" / "x"
    assert ".." not in plain_path("../../x/../y").parts


@pytest.mark.parametrize(
    "name",
    ["con", "AUX", "nul.png", "COM1", "lpt9.tar.gz", "com\u00b9", "Con .x", "day.", "day ", "."],
)
def test_names_that_windows_takes_for_devices_or_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs may lie on a share of Windows; what is stored keeps its name elsewhere."""
    assert is_refused_by_windows(name)
    if name != ".":
        assert PureWindowsPath(name.rstrip(". ")).is_reserved() or name[-1] in ". "
    assert not is_refused_by_windows(readable_name(name))
    before = safe_name(name)
    monkeypatch.setattr(names, "WINDOWS", True)
    assert not is_refused_by_windows(safe_name(name))
    assert safe_name("bolt") == "bolt"
    assert before == quote(name, safe=" +,=()[]@").replace(".", "%2E" if name == "." else ".")


@given(st.lists(ANY, unique=True, max_size=30))
def test_on_windows_different_names_stay_different(found: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "WINDOWS", True)
        made = [safe_name(name) for name in found]
    assert len(set(made)) == len(made)
    assert not any(map(is_refused_by_windows, made))


@pytest.mark.parametrize(
    ("name", "words"),
    [("Metal_Nut", "metal nut"), (" cut-outer__wall ", "cut outer wall"), ("_-_", "")],
)
def test_a_name_in_words(name: str, words: str) -> None:
    assert names.in_words(name) == words
    assert names.in_words(words) == words
