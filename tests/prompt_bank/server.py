"""A real HTTP server that speaks the chat-completions protocol, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What to do with the n-th request: a text to answer, or a fault
Plan = Callable[[int, dict[str, Any]], Any]


class Fault:
    """Faults: a status with headers and body, raw bytes, a pause before answering, a cut."""

    def __init__(
        self,
        status: int = 200,
        headers: dict[str, str] | None = None,
        body: bytes = b"{}",
        pause: float = 0.0,
        cut: bool = False,
    ) -> None:
        self.status, self.headers, self.body = status, headers or {}, body
        self.pause, self.cut = pause, cut


class Server(ThreadingHTTPServer):
    daemon_threads = True
    plan: Plan
    seen: list[dict[str, Any]]
    times: list[float]
    lock: threading.Lock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.seen)
            asked = {"authorization": self.headers["authorization"], "path": self.path}
            self.server.seen.append(body | asked)
            self.server.times.append(time.monotonic())
        answer = self.server.plan(number, body)
        if not isinstance(answer, Fault):
            answer = Fault(body=completion(answer))
        if answer.pause:
            time.sleep(answer.pause)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)

    def log_message(self, *args: Any) -> None:
        """Stay quiet."""


def completion(text: str, finish: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


@contextmanager
def serving(plan: Plan) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.plan, server.seen, server.times, server.lock = plan, [], [], threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
