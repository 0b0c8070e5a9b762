"""Who may ask, and how much at a time: the outermost layer of every request.

A page of another site must not reach a server on this computer.  A browser says for whom it asks
(``Host``) and for which page (``Origin``, ``Sec-Fetch-Site``); what is not our own page is refused,
and no header ever allows another one (no CORS).  A program says neither, and is let in.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from zsad.app.settings import AppSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "zsad_app"
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that is answered here.  ``status``: of HTTP."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """Lets through what may be asked, and counts it."""

    def __init__(self, app: Application, settings: AppSettings) -> None:
        self.app, self.settings = app, settings
        self.busy = 0  # requests that upload something, from their first byte to their answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        uploads = scope["method"] not in ("GET", "HEAD")
        try:
            self._check(scope)
            if uploads and self.busy >= self.settings.limits.waiting:
                raise Refused(
                    429, "too many requests at once; ask again in a second", retry_after="1"
                )
        except Refused as refused:
            return await _answer(send, refused)
        body = _Body(receive, send, self.settings.limits.upload, self.settings.limits.silence)
        self.busy += uploads
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            self.busy -= uploads

    def _check(self, scope: Scope) -> None:
        """Raise :class:`Refused` for what is not answered."""
        names = [name for name, _ in scope["headers"]]
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        if names.count(b"host") != 1 or not self.settings.serves(_without_port(host)):
            raise Refused(403, "the request is for another host than this one")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host.lower()}":
            raise Refused(403, "the request comes from a page of another site")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "the request comes from a page of another site")
        self._check_token(scope, headers)
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise Refused(400, "the length of the request is not a number")
        if int(length[:18]) > self.settings.limits.upload:
            raise _too_large(self.settings.limits.upload)

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> None:
        token = self.settings.token
        if not token:
            return
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _equal(asked, token):
            kept = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
            raise Refused(303, "the token is kept", location="/", set_cookie=kept)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _equal(given.strip(), token):
            return
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if COOKIE in cookies and _equal(cookies[COOKIE].value, token):
            return
        raise Refused(
            401, "a token is needed: open /?token=TOKEN, or send 'Authorization: Bearer TOKEN'"
        )


class _Body:
    """The two directions of a request: its body is bounded, and its answer gets our headers."""

    def __init__(self, receive: Receive, send: Send, most: int, silence: float) -> None:
        self._receive, self._send, self._most, self._silence = receive, send, most, silence
        self._taken = 0
        self._whole = False
        self._refused: Refused | None = None
        self._answered = False

    async def receive(self) -> Message:
        """The next part.  Raises :class:`Refused` where there is too much, or nothing more."""
        if self._whole:
            return await self._receive()  # waits until the client goes away
        try:
            message = await asyncio.wait_for(self._receive(), self._silence)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            raise self._refuse(Refused(408, "the rest of the request did not come")) from None
        self._taken += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._taken > self._most:
            raise self._refuse(_too_large(self._most))
        return message

    def _refuse(self, refused: Refused) -> Refused:
        self._refused, self._whole = refused, True
        return refused

    async def send(self, message: Message) -> None:
        """A part of the answer; ours in place of it, where the request was refused half way."""
        if self._refused is not None:
            if not self._answered:
                self._answered = True
                await _answer(self._send, self._refused)
            return
        if message["type"] == "http.response.start":
            own = {name.decode("latin-1").lower() for name, _ in message.get("headers", [])}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k not in own]
            message["headers"] = [*message.get("headers", []), *added]
        await self._send(message)


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.text}).encode()
    said = {**HEADERS, "content-type": "application/json", **refused.headers}
    said |= {"content-length": str(len(body)), "connection": "close"}
    headers = [(k.encode(), v.encode("latin-1")) for k, v in said.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _too_large(most: int) -> Refused:
    return Refused(413, f"the request is larger than {most / 2**20:g} MiB")


def _without_port(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
