"""What an endpoint may send, and how long it may take: bounds that hold whatever it does."""

from __future__ import annotations

import ast
import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.prompt_bank.server import Fault, completion, serving
from zsad.errors import RequestError
from zsad.prompt_bank import parsing
from zsad.prompt_bank.answers import AnswerStore
from zsad.prompt_bank.endpoint import Endpoint, EndpointOptions, NoAnswer

ROOT = Path(__file__).resolve().parents[2]


def endpoint(url: str, **values: float) -> Endpoint:
    options = {"timeout": 5.0, "attempts": 2, "first_wait": 0.01, **values}
    return Endpoint(EndpointOptions(url, "m", "a-secret-key", **options))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------ size
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(body=completion("a hole\n" * 60_000)), "the answer has more than 256,000 bytes"),
        (Fault(body=completion("x") + b" " * 3_000_000), "a reply of more than"),
        (
            Fault(headers={"content-encoding": "gzip"}, body=gzip.compress(completion("a hole"))),
            "a reply that is packed",
        ),
        (Fault(body=completion("half \ud83d of it")), "malformed reply"),
        (Fault(body=b"[" * 100_000), "malformed reply|recursion|nested"),
    ],
)
def test_replies_without_measure_are_refused(fault: Fault, words: str) -> None:
    with serving(lambda n, body: fault) as server, pytest.raises(NoAnswer, match=words):
        endpoint(server.url).ask("what?", 0.0)


def test_an_answer_at_the_limit_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\u00e9" * 128_000
    with serving(lambda n, body: text) as server:
        assert endpoint(server.url).ask("what?", 0.0) == text
        monkeypatch.setenv("ZSAD_MAX_ANSWER", "255999")
        with pytest.raises(NoAnswer, match="more than 255,999 bytes"):
            endpoint(server.url).ask("what?", 0.0)


# ------------------------------------------------------------------------------------ time
@contextmanager
def dripping(head: bytes) -> Iterator[tuple[str, list[object]]]:
    """A server that sends ``head`` at once and then a byte every tenth of a second, for a minute at
    most; its address, and whoever came."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    guests: list[object] = []

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(head)
            for _ in range(600):
                if over.wait(0.1):
                    return
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    def serve() -> None:
        while not over.is_set():
            try:
                connection, guest = listener.accept()
            except OSError:
                return
            guests.append(guest)
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", guests
    finally:
        over.set()
        listener.close()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"]
)
def test_a_server_that_drips_is_too_late(head: bytes) -> None:
    with dripping(head) as (url, guests):
        with pytest.raises(NoAnswer, match=r"no answer within 0\.5 s|no answer in"):
            endpoint(url, timeout=0.5, attempts=9).ask("what?", 0.0)
        assert 1 <= len(guests) <= 4  # of half a second each, in the time of three


def test_all_attempts_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Fault(429, {"retry-after": "30"}, b"{}")
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with serving(lambda n, body: slow) as server:
        with pytest.raises(NoAnswer, match=r"no answer within 15 s in 1 attempts"):
            endpoint(server.url, timeout=5.0, attempts=9).ask("what?", 0.0)
        assert len(server.times) == 1
    assert len(slept) == 1
    assert slept[0] <= 15.0  # not the 30 that the server asks for


@pytest.mark.parametrize("url", ["http://[::1", "\x1b", "http://a:b:c/"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RequestError, match=r"--base-url .*: not an address") as error:
        endpoint(url)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------ form
@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        "[" * 51 + '"a"' + "]" * 51,
        '["half \\ud83d of it"]',
        '["a hole", NaN]',
        "9" * 10_000,
        "a hole\n" * 100_000,
        '["' + "a" * 300_000 + '"]',
    ],
)
def test_answers_without_measure_hold_nothing(answer: str) -> None:
    for read in (parsing.anomaly_types, lambda a: parsing.sentences(a, "abnormal")):
        assert read(answer) in ([], ["a hole"])
    parsing.tainted(answer)


def test_words_that_are_none_are_not_kept() -> None:
    assert parsing.anomaly_types("- a hole\n- " + "a" * 61) == ["a hole"]


def test_fences_are_taken_off() -> None:
    for body in ("[1]", "- a\n- b", ""):
        for fenced in (f"```json\n{body}\n```", f"  ```\n{body}```  \n", body):
            assert parsing.unfenced(fenced) == body


def test_a_cached_answer_that_is_odd_is_asked_for_again(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    question = {"prompt": "what?", "model": "m"}
    path = store.put(question, "a hole")
    record = json.loads(path.read_text())
    for odd in ("half \ud83d of it", "x" * 300_000, 5, None, ["a hole"]):
        path.write_text(json.dumps(record | {"answer": odd}))
        assert store.get(question) is None
        assert store.broken() == [path]


# --------------------------------------------------------------------- regular expressions
def patterns() -> Iterator[tuple[str, str, int, str]]:
    """Every pattern that is written out in the source: (place, pattern, flags, how it is used)."""
    for path in sorted((ROOT / "zsad").rglob("*.py")) + sorted((ROOT / "methods").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.")):
                continue
            if node.args and isinstance(node.args[0], ast.Constant):
                text = node.args[0].value
                flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(node) else 0
                use = ast.unparse(node.func).removeprefix("re.")
                if isinstance(text, str) and use != "escape":
                    how = use if use in ("match", "fullmatch") else "search"
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", text, flags, how


# Their patterns are for names of files, which end at 255 bytes.
OF_NAMES = ("zsad/data/", "zsad/runtime/pictures.py")


def pumped(pattern: str, length: int) -> Iterator[str]:
    """Long texts that a pattern nearly matches: what it names, with one sign over and over."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\.", " ", pattern))[:6]
    signs = dict.fromkeys([*re.sub(r"[A-Za-z0-9]", "", pattern)[:40], " ", "\n", "a", "1", "```"])
    starts = dict.fromkeys(["", "<", "[", '"', "-", ":", "**", "#", *(f"{w} " for w in words)])
    for start in starts:
        for sign in signs:
            yield start + sign * (length // len(sign)) + "\x01"
    for word in words:
        yield f"{word} " * (length // (len(word) + 1))


def seconds(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def takes_the_square(use: Callable[[str], object], long: str, short: str) -> bool:
    """Whether a pattern takes (nearly) sixteen times as long for four times the text, by the best
    of three tries: a busy machine makes both slow."""
    if seconds(partial(use, long)) < 0.08:
        return False
    most, least = (min(seconds(partial(use, t)) for _ in range(3)) for t in (long, short))
    return most > 0.08 and most > 8 * least


def test_what_takes_the_square_is_seen() -> None:
    long, short = (" " * length + "x" for length in (8_000, 2_000))
    assert takes_the_square(re.compile(r"\s+$").search, long, short)
    assert not takes_the_square(re.compile(r"\s+x").search, long, short)
    assert not takes_the_square(partial(re.sub, r"(.)", r"\1\1"), 60 * long, 60 * short)


def test_no_pattern_takes_the_square_of_a_text() -> None:
    """8,000 characters squared are 64 million steps, which take a fifth of a second and more."""
    found = [found for found in patterns() if re.search(r"[*+]", found[1])]
    assert len(found) > 20
    slow = []
    for place, pattern, flags, how in found:
        use = getattr(re.compile(pattern, flags), how)
        length = 255 if place.startswith(OF_NAMES) else 8_000
        for text, short in zip(pumped(pattern, length), pumped(pattern, length // 4), strict=True):
            if takes_the_square(use, text, short):
                slow.append(f"{place}: {pattern!r} on {text[:20]!r}...")
                break
    assert slow == []
