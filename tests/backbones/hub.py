"""A hub on the loopback: answers what a client asks for a repository and for a file of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a hub that holds ``files`` by "OWNER/REPO/NAME", of one commit."""

    class Hub(BaseHTTPRequestHandler):
        def _answer(self, body: bool) -> None:
            if self.path.startswith("/api/models/"):
                self._describe(self.path.removeprefix("/api/models/"))
                return
            repository, _, name = self.path.lstrip("/").partition("/resolve/")
            content = files.get(f"{repository}/{name.partition('/')[2]}")
            self.send_response(404 if content is None else 200)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
                content = b""
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def _describe(self, place: str) -> None:
            """What a repository holds at a revision of it, of which there is one."""
            repository, _, revision = place.partition("/revision/")
            names = [n.removeprefix(f"{repository}/") for n in files if n.startswith(repository)]
            known = bool(names) and revision == COMMIT
            about = {
                "id": repository,
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in names],
            }
            content = json.dumps(about if known else {"error": "not there"}).encode()
            self.send_response(200 if known else 404)
            if not known:
                self.send_header("X-Error-Code", "RevisionNotFound" if names else "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
