"""What becomes of a foreign text when it is shown."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.hostile import TEXTS, is_plain
from zsad.errors import DataError, RequestError, few, gist, is_out_of_memory, reason, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("größe 图", "größe 图"),
        ("a\nb\r\x1b[0m", r"a\nb\r\x1b[0m"),
        ("caf\udce9", r"caf\xe9"),
        ("\u202egnp", r"\u202egnp"),
        ("\x9b\x85\u2028", r"\x9b\x85\u2028"),
        ("\U000e0041\ud83d", r"\U000e0041\ud83d"),
        ("10\u00a0%", "10\u00a0%"),
        (3, "3"),
    ],
)
def test_what_does_not_print_is_written_out(text: object, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(st.characters(codec=None)))
def test_what_is_shown_acts_on_nothing_and_is_escaped_once(text: str) -> None:
    found = shown(text)
    assert is_plain(found)
    assert "\n" not in found
    assert shown(found) == found
    found.encode("utf-8")


@pytest.mark.parametrize("name", TEXTS.values(), ids=TEXTS)
def test_a_message_is_one_line_whatever_it_names(name: str) -> None:
    text = str(DataError(f"{name}: broken"))
    assert is_plain(text)
    assert "\n" not in text
    assert reason(RequestError(text)) == text.strip()


def test_the_cause_of_an_error_is_kept_wherever_its_library_puts_it() -> None:
    with pytest.raises(yaml.YAMLError) as of_yaml:
        yaml.safe_load("a: 1\nb: [1,")
    assert gist(of_yaml.value) == "expected the node content, but found '<stream end>', line 2"
    with pytest.raises(OmegaConfBaseException) as of_omegaconf:
        OmegaConf.to_container(OmegaConf.create({"a": "${b}"}), resolve=True)
    assert gist(of_omegaconf.value) == "Interpolation key 'b' not found"
    assert gist(RuntimeError("Error(s) in loading:\n\tsize mismatch for a")) == (
        "Error(s) in loading: ... size mismatch for a"
    )
    assert gist(ValueError("")) == "ValueError"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),  # a text about it
    ],
)
def test_exhausted_memory_has_many_names(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["b", "a", "c"], "b, a, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        (map(str, range(2003)), "0, 1, 2 and 2,000 more"),
    ],
)
def test_a_few_of_many_names(names: Iterable[str], text: str) -> None:
    assert few(names) == text
