"""A real headless Chromium, driven over its debugging pipe with the standard library alone."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--remote-debugging-pipe"),
)
# Code and text of a key.
KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
}
MISSING = "no Chromium on this machine; `make browser` installs Debian's package"


def find() -> str | None:
    """The browser's program, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def _high(descriptor: int) -> int:
    """The same open pipe under a number from 10 up."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Browser:
    """One browser with one page at a time.

    ``errors``: uncaught exceptions and console errors; ``requests``: every address asked for.
    """

    def __init__(self, profile: Path, seconds: float = 60.0) -> None:
        program = find()
        if program is None:
            raise FileNotFoundError(MISSING)
        self.seconds = seconds
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        self._number = 0
        self._session = ""
        self._rest = b""
        # The browser reads commands from descriptor 3 and answers on 4; ours lie above these.
        inward, self._write = (_high(end) for end in os.pipe())
        self._read, outward = (_high(end) for end in os.pipe())
        script = f'exec 3<&{inward} 4>&{outward}; exec "$0" "$@"'
        command = ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            command,
            pass_fds=(inward, outward),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inward)
        os.close(outward)

    def __enter__(self) -> Browser:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # ------------------------------------------------------------------------ what it does
    def open(
        self, page: Path | str, width: int = 1200, height: int = 900, dark: bool = False
    ) -> None:
        """Show a file or an address in a window of that many CSS pixels; below 600 it behaves like
        a phone."""
        phone = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.send("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait until a page is there that was asked for."""
        end = time.monotonic() + self.seconds
        while "Page.loadEventFired" not in self._events:
            self._receive(end)
        self._events.clear()

    def until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true, on this page or one that it leads to."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            try:
                if self.value(expression):
                    return
            except RuntimeError:  # between two pages
                pass
            time.sleep(0.05)
        raise TimeoutError(f"never true: {expression}")

    def press(self, key: str) -> None:
        """Press and release one of :data:`KEYS`, as a keyboard does."""
        code, text = KEYS[key]
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="rawKeyDown", **named)
        if text:
            self.send("Input.dispatchKeyEvent", type="char", text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def tab_to(self, selector: str, most: int = 80) -> str:
        """Press Tab until an element that fits the selector has the focus; return its text."""
        focused = f"document.activeElement.matches({json.dumps(selector)})"
        for _ in range(most):
            self.press("Tab")
            if self.value(focused):
                return str(self.value("document.activeElement.textContent"))
        raise TimeoutError(f"Tab never comes to {selector}")

    def upload(self, selector: str, *files: Path) -> None:
        """Choose files as a reader does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(f) for f in files])

    def value(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False, selector: str = "", top: int = 0) -> Path:
        """Save a picture (PNG or, by its ending, JPEG) of the window, the page or an element."""
        options: dict[str, Any] = {"format": "jpeg" if path.suffix == ".jpg" else "png"}
        if options["format"] == "jpeg":
            options["quality"] = 80
        if whole or selector:
            node = f"document.querySelector({json.dumps(selector or 'html')})"
            found = self.value(
                f"(() => {{ const b = {node}.getBoundingClientRect().toJSON();"
                f" b.y += scrollY; return b }})()"
            )
            clip = {k: found[k] for k in ("x", "y", "width", "height")}
            options |= {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True}
        else:
            self.value(f"scrollTo(0, {top})")
        data = self.send("Page.captureScreenshot", **options)["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    # --------------------------------------------------------------------------- the pipe
    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; events on the way are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.seconds
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError(f"the browser did not answer (exit {self._process.poll()})")
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(raw)
        params = answer.get("params", {})
        self._events.append(answer.get("method", ""))
        if answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif answer.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif answer.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        return answer
