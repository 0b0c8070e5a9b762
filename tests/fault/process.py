"""Runs ``zsad`` in processes of its own that share their imports and die where a test says.

The processes are forked from a server that has imported everything and computed nothing, so that
one costs its work alone.  They call the command line's entry point and are killed for real.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

LONG = bool(os.environ.get("ZSAD_FAULT_LONG"))  # `make fault`
MOMENTS = int(os.environ.get("ZSAD_FAULT_MOMENTS", "0"))  # to die at, of each command; 0: as usual
SECONDS = float(os.environ.get("ZSAD_FAULT_SECONDS", "inf"))  # for the moments of one command


def moments(writes: int, few: int, seed: str) -> Iterator[int]:
    """Which of a run's ``writes`` changes to die before, in any order: ``few`` of them, in the long
    version all, as many as MOMENTS says where it does, and none later than SECONDS from now."""
    count = MOMENTS or (writes if LONG else few)
    end = time.monotonic() + SECONDS
    for moment in random.Random(seed).sample(range(1, writes + 1), min(count, writes)):
        if time.monotonic() > end:
            return
        yield moment


# Whatever a run changes on disk announces itself by one of these audit events, or opens a file.
CHANGES = frozenset(
    {
        *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.utime"),
        *("os.link", "os.symlink", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp"),
    }
)
TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def changes(event: str, args: tuple[Any, ...], watch: str) -> bool:
    """Whether an audit event announces a change below the folder ``watch``."""
    if event == "open":
        if not (isinstance(args[2], int) and args[2] & TO_WRITE):
            return False
    elif event not in CHANGES:
        return False
    places = [os.fspath(a) for a in args if isinstance(a, (str, os.PathLike))]
    return any(isinstance(p, str) and p.startswith(watch) for p in places)


@dataclass(frozen=True)
class Done:
    """What became of a process.  ``writes``: its changes below the watched folder."""

    code: int
    out: str
    err: str
    writes: int

    def quiet(self) -> Done:
        """The same, if it said nothing that only a programmer understands."""
        assert "Traceback" not in self.err, self.err
        assert "internal error" not in self.err, self.err
        return self


class Process:
    """One call of ``zsad`` that has been started.

    ``watch``: a folder; ``kill_at``: before its n-th change there the process sends itself
    ``sign``.  ``setup``: called in the process before everything else.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        watch: Path | None = None,
        kill_at: int = 0,
        sign: signal.Signals = signal.SIGKILL,
        setup: Callable[[], None] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zsad-fault-")
        self._out: list[bytes] = []
        reader, writer = server().Pipe(duplex=False)
        arguments = (list(argv), self._folder.name, writer, str(watch or ""), kill_at, sign, setup)
        self._process: ForkServerProcess = server().Process(target=_call, args=arguments)
        self._process.start()
        writer.close()
        self._reader = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._reader.start()

    def _read(self, pipe: Connection) -> None:
        with pipe:
            while block := os.read(pipe.fileno(), 1 << 16):
                self._out.append(block)

    def kill(self) -> None:
        self._process.kill()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def wait(self, timeout: float = 120.0) -> Done:
        """Wait for the end.  A process that hangs is killed and fails the test, and so does one
        that no kill ends, or whose output somebody holds open: nothing here waits for ever."""
        self._process.join(timeout)
        hung = self._process.is_alive()
        if hung:
            self._process.kill()
            self._process.join(KILLED)
        code = self._process.exitcode
        assert code is not None, f"still there {KILLED:g} s after it was killed"
        folder = Path(self._folder.name)
        texts = [
            p.read_text(errors="replace") if (p := folder / n).exists() else ""
            for n in ("err", "writes")
        ]
        self._folder.cleanup()
        assert not hung, f"hung after {timeout} s: {texts[0]}"
        self._reader.join(KILLED)
        assert not self._reader.is_alive(), "it ended, but what it started holds its output open"
        return Done(code, b"".join(self._out).decode(), texts[0], int(texts[1] or 0))


def zsad(*argv: str, **options: Any) -> Done:
    """Run ``zsad`` to its end."""
    return Process(argv, **options).wait().quiet()


KILLED = 30.0  # seconds until a process that was killed is gone, on a very busy machine


@cache
def server() -> ForkServerContext:
    """The server has a single thread: what is forked from one with more may wait for ever for a
    lock that another thread held.  Arrow's memory would be tidied by a thread of its own."""
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fault.imports"])
    return context


def _call(
    argv: list[str],
    folder: str,
    out: Connection,
    watch: str,
    kill_at: int,
    sign: signal.Signals,
    setup: Callable[[], None] | None,
) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(f"{folder}/err", os.O_WRONLY | os.O_CREAT), 2)
    out.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if setup is not None:
        setup()
    seen = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if changes(event, args, watch):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), sign)

    if watch:
        sys.addaudithook(count)
    from zsad.cli.main import main

    code = main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    watch = "\0"  # nothing that follows counts
    Path(folder, "writes").write_text(str(seen))
    os._exit(code)


# ------------------------------------------------------------------- things that happen to disks
@dataclass(frozen=True)
class FileSizeLimit:
    """Files may not grow beyond ``size`` bytes: writing fails as on a full disk."""

    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


def obey_permissions() -> None:
    """Let permissions hold for the superuser, too: give up the right to override them."""
    import ctypes

    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        held = _capabilities()
        for capability in (1, 2):  # DAC_OVERRIDE, DAC_READ_SEARCH
            held &= ~(1 << capability)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        low, high = held & 0xFFFFFFFF, held >> 32
        data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
        if libc.capset(header, data) != 0:
            raise OSError(ctypes.get_errno(), "capset")


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
