"""A thread without IPv6: it, and what it starts, but nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial

import pytest

from zsad.runner.ray.ipv4 import Thread, forbid_ipv6

OPEN = "import socket, sys; socket.socket(getattr(socket, sys.argv[1])).close()"


def opens(family: str) -> bool:
    """Whether a new process has sockets of this family."""
    done = subprocess.run([sys.executable, "-c", OPEN, family], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 or "Address family not supported" in done.stderr
    return done.returncode == 0


def test_ipv6_is_gone_there_and_nowhere_else() -> None:
    thread = Thread()
    if not thread.call(forbid_ipv6):
        pytest.skip("this system takes no kind of socket away")
    assert not thread.call(partial(opens, "AF_INET6"))
    assert thread.call(partial(opens, "AF_INET"))
    with pytest.raises(OSError, match="Address family not supported"):
        thread.call(partial(socket.socket, socket.AF_INET6))
    if socket.has_ipv6:
        assert opens("AF_INET6")


def test_what_is_raised_there_is_raised_here() -> None:
    thread = Thread()
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    assert thread.call(lambda: 3) == 3  # and it lives on
