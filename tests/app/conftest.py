"""An app that is served in this process, and a browser to look at it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra `app` is not installed")

from tests.app.driving import served
from zsad.app.server import Server
from zsad.app.settings import AppSettings, Limits

EVIL = "<img src=x onerror=window.hacked=1>"


def picture(path: Path, seed: int = 0) -> Path:
    """A small noisy picture with a dark spot."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(120, 136, (64, 80, 3), dtype=np.uint8)
    pixels[20:30, 30:44] = 20 + seed % 60
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


class Answer(NamedTuple):
    """An answer of the app."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def plain(self) -> Any:
        """Its JSON document."""
        return json.loads(self.body)


class Running(NamedTuple):
    """An app that answers."""

    address: str
    server: Server
    folder: Path

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Ask for something; whatever is answered comes back."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.address}{path}", body, named)
        try:
            with urllib.request.urlopen(request, timeout=300) as found:
                return Answer(found.status, dict(found.headers), found.read())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, dict(refused.headers), refused.read())

    def post(self, path: str, *parts: tuple[str, Any], **headers: str) -> Answer:
        """Send a form: of each part a name and a text, or (file name, content)."""
        lines = []
        for name, value in parts:
            named, content = value if isinstance(value, tuple) else (None, str(value).encode())
            about = f'form-data; name="{name}"' + (f'; filename="{named}"' if named else "")
            lines += [b"--limit", f"Content-Disposition: {about}".encode(), b"", content]
        body = b"\r\n".join([*lines, b"--limit--", b""])
        kind = "multipart/form-data; boundary=limit"
        return self.ask(path, body, Content_Type=kind, **headers)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The app with WinCLIP on zsad-tiny."""
    folder = tmp_path_factory.mktemp("app")
    limits = Limits(upload=2**20, pictures=40, waiting=40, runs=3)
    loading = {"device": "cpu", "offline": True}
    settings = AppSettings("winclip", "zsad-tiny", loading=loading, limits=limits)
    with served(settings, folder) as (address, server):
        yield Running(address, server, folder)
