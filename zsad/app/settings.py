"""What the server is started with, what a client may choose, and how much it may ask for."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsad import registry
from zsad.backbones.specs import spec
from zsad.checkpoints import bundled
from zsad.errors import RequestError, unknown

PACKAGES = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
TOKEN = "ZSAD_APP_TOKEN"
NAMED = f"--token ({TOKEN})"
SHORTEST_TOKEN = 16  # characters
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """``upload``: bytes of a request; ``pictures`` of one; ``waiting``: requests that are read,
    wait or are worked on at a time; ``runs`` that are kept; ``silence``: seconds without a byte of
    a request that has begun."""

    upload: int = 64 * 2**20
    pictures: int = 200
    waiting: int = 64
    runs: int = 20
    silence: float = 30.0


@dataclass(frozen=True)
class Choice:
    """What a client chooses by name: never a path, and no further setting."""

    method: str
    backbone: str


@dataclass(frozen=True)
class AppSettings:
    """``method``, ``backbone``: what the page begins with; ``checkpoint``, ``preset`` and
    ``overrides`` are those of ``method``, ``weights`` those of ``backbone``.  ``loading``: further
    keywords of :func:`zsad.load_method` for whatever is chosen.  ``class_name``: what pictures
    show where a request does not say it."""

    method: str
    backbone: str
    checkpoint: str | None = None
    preset: str | None = None
    weights: str | None = None
    overrides: Mapping[str, Any] | Sequence[str] | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)
    host: str = LOOPBACK[0]
    token: str = ""
    limits: Limits = Limits()
    class_name: str = ""

    def __post_init__(self) -> None:
        spec(self.backbone)  # raises for a name that nothing knows
        self.check(Choice(self.method, self.backbone))
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise RequestError(f"{NAMED}: give at least {SHORTEST_TOKEN} characters")
        if self.token and not (self.token.isascii() and self.token.isalnum()):
            raise RequestError(f"{NAMED}: may hold letters and digits alone")
        if self.host not in LOOPBACK and not self.token:
            raise RequestError(
                f"--host {self.host}: others can reach it, so it needs a token; set {TOKEN} or "
                f"give --token: {SHORTEST_TOKEN} or more letters and digits"
            )

    def check(self, choice: Choice) -> None:
        """Raise :class:`RequestError` for what a client may not choose."""
        registry.method(choice.method)
        if choice.backbone not in self.backbones():
            raise unknown("backbone", choice.backbone, self.backbones())
        if why := self.missing(choice):
            raise RequestError(why)

    def backbones(self) -> list[str]:
        """The backbones that are offered: those with a name of their own, and the server's."""
        own = [name for name in registry.list_backbones() if name != "file"]
        return own if self.backbone in own else [self.backbone, *own]

    def missing(self, choice: Choice) -> str:
        """Why a method cannot be used, or ""."""
        entry = registry.method(choice.method)
        if not entry.trained or (choice.method == self.method and self.checkpoint):
            return ""
        if bundled.state_of(entry, choice.backbone) is not None:
            return ""
        return (
            f"method '{choice.method}' is trained and the app has no state of it for "
            f"{choice.backbone}; start it with --method {choice.method} --checkpoint FILE"
        )

    def keywords(self, choice: Choice) -> dict[str, Any]:
        """The keywords of :func:`zsad.load_method` for a choice."""
        own, same = choice.method == self.method, choice.backbone == self.backbone
        return {
            **self.loading,
            "backbone": choice.backbone,
            "weights": self.weights if same else None,
            "checkpoint": self.checkpoint if own else None,
            "preset": self.preset if own else None,
        }

    def own_overrides(self, choice: Choice) -> Mapping[str, Any] | Sequence[str] | None:
        """The settings of the command line that a choice gets."""
        return self.overrides if choice.method == self.method else None

    def serves(self, host: str) -> bool:
        """Whether a ``Host`` header without its port names this server.

        A foreign name that leads here (DNS rebinding) does not; an address has no such names.
        """
        if host in (*LOOPBACK, "[::1]", self.host):
            return True
        if self.host in LOOPBACK:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return host == socket.gethostname().lower()
        return True


def token() -> str:
    """The token of the environment, or ""."""
    return os.environ.get(TOKEN, "").strip()


def require_packages() -> None:
    """Raise :class:`RequestError` where the extra is not installed."""
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise RequestError(
                f"`zsad app` needs the package {package}; `pip install 'zsad[app]'` adds it"
            )


def folder_of(place: str | None, temporary: Path) -> Path:
    """The folder that everything is written to.  Raises :class:`RequestError`."""
    if place is None:
        return temporary
    path = Path(place)
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        if any(path.iterdir()):
            raise RequestError(f"--folder {place}: is not empty; name a new one")
    except OSError as error:
        raise RequestError(f"--folder {place}: cannot be used ({error.strerror})") from None
    return path
