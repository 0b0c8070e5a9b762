"""Who may ask: hosts, origins, tokens, sizes and numbers of requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `app` is not installed")

from zsad.app.guard import COOKIE, Guard, Message, Receive, Scope, Send
from zsad.app.settings import AppSettings, Limits

TOKEN = "0123456789abcdef"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, and answer with its length; 400 for a body that ends early."""
    length, status = 0, 200
    try:
        while True:
            message = await receive()
            length += len(message.get("body", b""))
            if not message.get("more_body"):
                break
    except Exception:  # what a parser makes of it
        status = 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def ask(
    settings: AppSettings,
    headers: list[tuple[str, str]],
    method: str = "GET",
    parts: tuple[bytes, ...] = (b"",),
    path: str = "/",
    query: str = "",
    guard: Guard | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, without a web server."""
    sent: list[Message] = []
    coming = [
        {"type": "http.request", "body": part, "more_body": i + 1 < len(parts)}
        for i, part in enumerate(parts)
    ]

    async def receive() -> Message:
        if not coming:
            await asyncio.sleep(60)
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers],
    }
    asyncio.run((guard or Guard(echo, settings))(scope, receive, send))
    said = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], said, b"".join(m.get("body", b"") for m in sent[1:])


LOCAL = AppSettings("winclip", "zsad-tiny", limits=Limits(upload=100, waiting=2, silence=0.05))
OPEN = AppSettings("winclip", "zsad-tiny", host="0.0.0.0", token=TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"])
def test_this_computer_may_ask(host: str) -> None:
    status, said, _ = ask(LOCAL, [("Host", host), ("Origin", f"http://{host.lower()}")])
    assert status == 200
    assert said["x-content-type-options"] == "nosniff"
    assert not [name for name in said if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "evil.example")],
        [("Host", "127.0.0.1.evil.example:8765")],
        [("Host", "evil.example@127.0.0.1")],
        [("Host", "192.168.0.7:8765")],
        [("Host", "127.0.0.1"), ("Host", "evil.example")],
        [("Host", "[::1"), ("Origin", "null")],
        [("Host", "localhost"), ("Origin", "https://evil.example")],
        [("Host", "localhost:8765"), ("Origin", "http://localhost:9999")],
        [("Host", "localhost"), ("Origin", "null")],
        [("Host", "localhost"), ("Origin", "")],
        [("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
        [("Host", "localhost"), ("Sec-Fetch-Site", "same-site")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_others_are_refused(headers: list[tuple[str, str]], method: str) -> None:
    status, said, body = ask(LOCAL, headers, method)
    if headers and "@" in headers[0][1]:  # a browser sends no user in it; it names this computer
        assert status == 200
        return
    assert status == 403
    assert list(json.loads(body)) == ["error"]
    assert not [name for name in said if name.startswith("access-control")]


def test_a_preflight_is_allowed_nothing() -> None:
    asked = [("Host", "localhost"), ("Origin", "http://evil.example")]
    assert ask(LOCAL, asked, "OPTIONS")[0] == 403


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ([], "", 401),
        ([], "token=wrong", 401),
        ([], f"token={TOKEN}", 303),
        ([("Authorization", f"Bearer {TOKEN}")], "", 200),
        ([("Authorization", f"bearer  {TOKEN} ")], "", 200),
        ([("Authorization", f"Basic {TOKEN}")], "", 401),
        ([("Authorization", "Bearer ")], "", 401),
        ([("Authorization", "Bearer \u00e9")], "", 401),
        ([("Cookie", f"{COOKIE}={TOKEN}")], "", 200),
        ([("Cookie", f"{COOKIE}=wrong")], "", 401),
        ([("Cookie", "\u00ff=;;=")], "", 401),
    ],
)
def test_a_token_is_asked_for(headers: list[tuple[str, str]], query: str, status: int) -> None:
    found, said, _ = ask(OPEN, [("Host", "10.0.0.1:8765"), *headers], query=query)
    assert found == status
    if status == 303:
        assert said["location"] == "/"
        assert "HttpOnly; SameSite=Strict" in said["set-cookie"]


def test_the_token_opens_the_page_alone() -> None:
    asked = [("Host", "10.0.0.1")]
    assert ask(OPEN, asked, path="/methods", query=f"token={TOKEN}")[0] == 401


def test_a_name_that_leads_here_is_refused_though_anybody_may_reach_it() -> None:
    known = [("Authorization", f"Bearer {TOKEN}")]
    assert ask(OPEN, [("Host", "rebound.example"), *known])[0] == 403
    assert ask(OPEN, [("Host", "[fe80::1]:8765"), *known])[0] == 200


@pytest.mark.parametrize(
    ("headers", "parts", "status"),
    [
        ([("Content-Length", "100")], (b"x" * 100,), 200),
        ([("Content-Length", "101")], (b"x" * 101,), 413),
        ([("Content-Length", "9" * 400)], (b"",), 413),
        ([("Content-Length", "-1")], (b"",), 400),
        ([], (b"x" * 60, b"x" * 40), 200),
        ([], (b"x" * 60, b"x" * 41), 413),
        ([("Content-Length", "5")], (b"x" * 60, b"x" * 60), 413),
    ],
)
def test_uploads_have_an_end(
    headers: list[tuple[str, str]], parts: tuple[bytes, ...], status: int
) -> None:
    assert ask(LOCAL, [("Host", "localhost"), *headers], "POST", parts)[0] == status


def test_a_client_that_stops_is_not_waited_for() -> None:
    guard = Guard(echo, LOCAL)
    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.sleep(60)
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(guard(scope, never, send))
    assert sent[0]["status"] == 408
    assert guard.busy == 0


def test_more_requests_than_wait_are_told_to_come_again() -> None:
    guard = Guard(echo, LOCAL)
    guard.busy = 2
    status, said, _ = ask(LOCAL, [("Host", "localhost")], "POST", guard=guard)
    assert (status, said["retry-after"]) == (429, "1")
    assert ask(LOCAL, [("Host", "localhost")], guard=guard)[0] == 200  # /health still answers
    guard.busy = 1
    assert ask(LOCAL, [("Host", "localhost")], "POST", guard=guard)[0] == 200
    assert guard.busy == 1


def test_a_web_socket_is_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(echo, LOCAL)({"type": "websocket", "headers": []}, send, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
