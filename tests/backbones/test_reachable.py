"""A mirror that is dead costs one line and seconds, and no retries of the hub's client."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from zsad.backbones import load
from zsad.backbones.reachable import unreachable
from zsad.checkpoints.sources import parse
from zsad.errors import WeightsError

asked: list[str] = []


class Mirror(BaseHTTPRequestHandler):
    """Answers as its address says: /500/, /404/, /200/."""

    def do_HEAD(self) -> None:
        asked.append(self.path)
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a mirror on loopback."""
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_what_answers_is_reachable(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, reason in (("200", ""), ("404", ""), ("500", "answers 500")):
        monkeypatch.setenv("HF_ENDPOINT", f"{mirror}/{code}/")
        found = unreachable("huggingface.co", hub=True)
        assert (reason in found) if reason else (found == "")
    assert asked == ["/200/", "/404/", "/500/"]
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    assert "HF_ENDPOINT=no address" in unreachable("huggingface.co", hub=True)


@pytest.mark.parametrize("how", ["dead", "failing"])
@pytest.mark.parametrize("name", ["vit-b-16-plus-240", "dinov2-vit-s-14", "hf://a/b@0123abc"])
def test_a_mirror_that_does_not_serve_costs_one_line_and_seconds(
    how: str,
    name: str,
    mirror: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = f"{mirror}/500/" if how == "failing" else f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", address)
    fetch = partial(parse, name, "clip.checkpoint") if "://" in name else partial(load, name)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError) as error:
        fetch()
    assert sum(slept) < 5  # the hub's client waits longer than that between its attempts
    assert f"HF_ENDPOINT={address}" in str(error.value)
    assert "\n" not in str(error.value)
    assert caplog.records == []
    assert len(asked) == (how == "failing")


def test_a_dead_proxy_is_named_by_its_variable(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{closed_port()}")
    found = unreachable("huggingface.co", hub=True)
    assert found.startswith("no connection to huggingface.co through https_proxy: ")
    assert "secret" not in found
