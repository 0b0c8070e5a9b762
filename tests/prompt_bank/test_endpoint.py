"""Keys and answers that are odd: refused at once, or taken for what they are."""

from __future__ import annotations

import pytest

from tests.prompt_bank.server import serving
from zsad.errors import RequestError
from zsad.prompt_bank.endpoint import Endpoint, EndpointOptions, NoAnswer
from zsad.prompt_bank.parsing import suspicious


def options(key: str, url: str = "http://127.0.0.1:9/v1") -> EndpointOptions:
    return EndpointOptions(base_url=url, model="toy", key=key, attempts=2, first_wait=0.01)


@pytest.mark.parametrize("key", ["a", "no", "local", "x" * 7])
def test_a_short_word_is_no_secret(key: str) -> None:
    """It stands in many an answer, for an endpoint that asks for no key."""
    answer = "a dent, no scratch, xxxxxxx, in a local place"
    with serving(lambda n, body: answer) as server:
        assert Endpoint(options(key, server.url)).ask("?", 0.0) == answer
        assert len(server.seen) == 1


def test_an_answer_that_repeats_a_real_key_is_refused_without_it() -> None:
    key = "sk-secret"
    with serving(lambda n, body: f"it is {key}") as server:
        with pytest.raises(NoAnswer, match="it repeats the key") as caught:
            Endpoint(options(key, server.url)).ask("?", 0.0)
        assert key not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["sk-0123456789\n", " sk-0123456789", "sk-\u201cx\u201d0123456", "sk-é123456789",
            "sk-\x00123456789", "sk-12\r\nX-Evil: 1", "sk-\u202e123456789", "sk-\udce9123456789"]
)  # fmt: skip
def test_a_key_that_no_header_can_carry_is_refused_at_once(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        RequestError, match=r"OPENAI_API_KEY (begins|holds).*set it again"
    ) as caught:
        options(key)
    assert "123456" not in str(caught.value)
    if "\0" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(RequestError, match="OPENAI_API_KEY"):
            EndpointOptions.from_environment(model="toy")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://host/v1", "does not begin with http"),
        ("localhost:8000", "does not begin with http"),
        ("host", "does not begin with http"),
        ("file:///etc/passwd", "does not begin with http"),
        ("http://", "names no server"),
        ("http:///v1", "names no server"),
        ("http://h:99999/v1", "Port out of range"),
        ("http://h:abc", "Port could not be cast"),
        ("http://h:0/v1", "port 0"),
        ("http:// h/v1", "a blank"),
        ("http://h\x1b/v1", "does not print"),
        ("http://[::1", "Invalid IPv6"),
        ("http://.../v1", "label empty"),
        (f"http://{'a' * 70}.x/v1", "too long"),
        ("https://me:secret@host/v1", "user name or a password"),
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_asked(url: str, why: str) -> None:
    with pytest.raises(RequestError, match=r"--base-url") as caught:
        options("sk-0123456789", url)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://ü.example/v1", "http://[::1]:9"]
)
def test_addresses_are_taken(url: str) -> None:
    assert options("sk-0123456789", url).base_url == url


@pytest.mark.parametrize(
    "code", [0x1B, 0x07, 0x85, 0x9B, 0x200B, 0x202E, 0x2066, 0xFEFF, 0xD83D, 0xE000]
)
def test_an_answer_with_what_is_not_seen_is_suspicious(code: int) -> None:
    assert suspicious(f"a scratched {chr(code)}surface")


def test_letters_and_blanks_of_all_alphabets_are_not() -> None:
    assert not suspicious("une\u00a0éraflure\u202f; 傷\u3000のある表面\n\ta dent")
