"""Memory that is freed stays with the process, unless the user or the system says otherwise."""

from __future__ import annotations

import ctypes
import resource
from typing import Any

import pytest
import torch

from zsad.backbones import host_memory
from zsad.backbones.host_memory import keep_freed_memory

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*host_memory.SETTINGS, host_memory.TUNABLES):
        monkeypatch.delenv(name, raising=False)
    keep_freed_memory.cache_clear()


@glibc
def test_a_buffer_of_many_megabytes_is_not_fetched_from_the_system_again() -> None:
    """48 MB are 12,288 pages; the first one is, and glibc by itself gives it back."""
    assert keep_freed_memory()
    torch.ones(12 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(12 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 6_000


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
