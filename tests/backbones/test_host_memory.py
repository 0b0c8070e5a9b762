"""Memory that is freed stays with the process, unless the user or the system says otherwise."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from zsad.backbones import host_memory
from zsad.backbones.host_memory import keep_freed_memory

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*host_memory.SETTINGS, host_memory.TUNABLES):
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory.cache_clear()


FAULTS = """
import resource
import numpy as np
from zsad.backbones.host_memory import keep_freed_memory
assert keep_freed_memory()
np.ones(6 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones(6 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@glibc
def test_a_buffer_of_many_megabytes_is_not_fetched_from_the_system_again() -> None:
    """48 MB are 12,288 pages; the first one is, and glibc by itself gives it back.  In a process
    of its own: among the pieces that other tests have left, the next buffer may lie elsewhere."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert int(done.stdout) < 6_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=128"),
    ],
)
def test_what_the_user_has_set_stays(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*args: Any) -> None:
        raise AssertionError("the C library was asked")

    monkeypatch.setattr(ctypes, "CDLL", called)
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


@pytest.mark.parametrize("fault", [AttributeError, OSError, TypeError])
def test_other_systems_have_no_such_switch(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(name: object) -> None:
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not keep_freed_memory()


def test_other_tunables_are_no_choice_of_memory() -> None:
    assert not host_memory.chosen_by_user({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2"})
