"""Files of a request, and runs: what was scored is kept for a while, to be looked at.

Everything lies below one folder.  The names that clients give to files are text: the names on
disk are made of them by :func:`zsad.io.names.readable_name`, below folders of ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zsad.app.settings import Choice
from zsad.errors import RequestError
from zsad.io.names import readable_name

ID = re.compile(r"[0-9a-f]{32}")
PARTS = ("found", "pictures")  # of a run, what can be asked for


@dataclass(frozen=True)
class Upload:
    """A file as it came: the name that the client gave it, its content's SHA-256, and where it
    lies."""

    name: str
    sha256: str
    path: Path


@dataclass
class Run:
    """``choice`` and ``class_name`` are filled in when it is scored, and ``references`` are the
    pictures that it was compared with."""

    folder: Path
    choice: Choice | None = None
    class_name: str = ""
    references: list[Upload] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its name in addresses."""
        return self.folder.name

    @property
    def found(self) -> Path:
        """Where page and table lie."""
        return self.folder / "found"

    @property
    def calibration(self) -> Path | None:
        """The thresholds that it made, if any."""
        path = self.found / "calibration.json"
        return path if path.is_file() else None

    def keep(self, kind: str, files: Sequence[tuple[str, bytes]]) -> list[Upload]:
        """Write uploaded files below the folder ``kind``."""
        kept, taken = [], set()
        for number, (name, content) in enumerate(files):
            plain = PurePosixPath(name.replace("\\", "/")).name or "picture"
            place = Path(readable_name(plain))
            if place.name.casefold() in taken:
                place = Path(f"{number}", place)
            taken.add(place.name.casefold())
            path = self.folder / kind / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            kept.append(Upload(plain, hashlib.sha256(content).hexdigest(), path))
        return kept

    def adopt(self, files: Sequence[Upload]) -> list[Upload]:
        """Copies of another run's files, which may go before this one.  Raises
        :class:`RequestError` where they are gone already."""
        try:
            return self.keep("references", [(up.name, up.path.read_bytes()) for up in files])
        except FileNotFoundError:
            raise RequestError("the run that is referred to is no longer kept") from None

    def file(self, part: str, inner: str) -> Path | None:
        """A file that can be asked for, or None."""
        if part not in PARTS or "\0" in inner:
            return None
        top = self.folder / part
        path = top / (inner or "index.html")
        try:
            inside = path.resolve().is_relative_to(top.resolve())
            return path if inside and path.is_file() else None
        except (OSError, ValueError):  # a name that the system refuses
            return None


class Runs:
    """The runs that are kept, the newest last."""

    def __init__(self, root: Path, most: int) -> None:
        self.root, self.most = root, most
        self._kept: dict[str, Run] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one(self, keep: bool) -> Iterator[Run]:
        """A new run; its files are removed at the end unless all went well and ``keep``."""
        run = Run(self.root / secrets.token_hex(16))
        run.folder.mkdir(mode=0o700)
        done = False
        try:
            yield run
            done = keep
        finally:
            if done:
                self._add(run)
            else:
                shutil.rmtree(run.folder, ignore_errors=True)

    def get(self, identity: str) -> Run | None:
        """A run that is kept."""
        return self._kept.get(identity) if ID.fullmatch(identity) else None

    def _add(self, run: Run) -> None:
        with self._lock:
            self._kept[run.id] = run
            while len(self._kept) > self.most:
                oldest = self._kept.pop(next(iter(self._kept)))
                shutil.rmtree(oldest.folder, ignore_errors=True)
