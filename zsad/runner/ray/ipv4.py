"""A thread that knows no IPv6, for what is started there.

The servers of Ray are gRPC's, which bind ``127.0.0.1`` by a socket of IPv6 wherever there are any:
the kernel then lists ``[::ffff:127.0.0.1]``, which is loopback as well, but neither looks so to
whoever watches the ports of a machine nor is met by rules for ``127.0.0.0/8``.  Neither Ray nor
gRPC has a setting for it.  Linux can take such sockets from a single thread and from all processes
that it starts: gRPC sees that there are none, once for each process, and takes IPv4.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import platform
import queue
import socket
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# <linux/prctl.h>, <linux/seccomp.h>, <linux/filter.h>
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # places in struct seccomp_data
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # architecture, system call


class Thread:
    """A thread without IPv6 that calls what it is given.

    It lasts as long as the process: the kernel ends processes that are to die with their parent
    when the thread ends that has started them.  Where there is no way to take IPv6 away (another
    system, another processor, a container that forbids it) it is a thread like any other.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="zsad-ipv4", daemon=True).start()

    def call(self, function: Callable[[], Result]) -> Result:
        """What ``function`` returns or raises, called there."""
        done: Future[Result] = Future()
        self._calls.put((function, done))
        return done.result()

    def _run(self) -> None:
        forbid_ipv6()
        while True:
            function, done = self._calls.get()
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)


def forbid_ipv6() -> bool:
    """Let this thread, and whatever it starts, open no socket of IPv6; whether that is so now."""
    known = _SOCKET.get(platform.machine())
    if sys.platform != "linux" or known is None:
        return False
    architecture, number = known
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 4, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 0, 2, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_IF_EQUAL, 1, 0, int(socket.AF_INET6)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EAFNOSUPPORT),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    taken = bool(
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        and libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0
    )
    if not taken:
        log.debug("IPv6 stays: the system refuses (error %d)", ctypes.get_errno())
    return taken


class _Program(ctypes.Structure):
    """``struct sock_fprog``: how many steps, and where they are."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))
