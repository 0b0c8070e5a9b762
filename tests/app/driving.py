"""The app as it is served and used: in this process, by way of a browser."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.report.browser import Browser
from zsad.app.server import Server, listening, web_server
from zsad.app.settings import AppSettings

READY = "document.getElementById('method')?.options.length > 3"
SHOWN = "document.querySelectorAll('.card').length > 0 && !document.querySelector('.nothing-yet')"


@contextlib.contextmanager
def served(settings: AppSettings, folder: Path) -> Iterator[tuple[str, Server]]:
    """An app on a free port: its address, and itself."""
    server = Server(settings, folder)
    with listening(settings.host, 0) as bound:
        web = web_server(server)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not web.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", server
        web.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def typed(browser: Browser, name: str, value: str) -> None:
    """Change a field of the form."""
    browser.value(
        f"(() => {{ const n = document.getElementById('{name}'); n.value = {value!r};"
        f" n.dispatchEvent(new Event('change')) }})()"
    )


def score(browser: Browser) -> None:
    """Press Enter in the field of the class name."""
    browser.value("document.getElementById('class-name').focus()")
    browser.press("Enter")
