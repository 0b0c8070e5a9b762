"""What operators free on the host stays with the process: the next one needs as much at once.

glibc gives large buffers back to the system when they are freed, and the system fills every page
of the next ones with zeros.  Behind a small encoder's products that is a fifth of the time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cache

# glibc's names and numbers (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30  # bytes at the end of the heap that are not given back
LARGEST = 1 << 30  # bytes of a buffer that lies in the heap
# By these a user sets the same; then nothing is changed.
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
TUNABLES = "GLIBC_TUNABLES"


def chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Whether the environment says how memory is to be given back."""
    told = any(environment.get(name) for name in SETTINGS)
    return told or "glibc.malloc." in environment.get(TUNABLES, "")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, in this process from now on; whether it does.

    False, and nothing is changed, where the user has set it otherwise and under other systems and
    C libraries, which have no ``mallopt``.  The most that is in use at once grows by what lies
    between used pieces of the heap, measured as one per cent at ViT-L.
    """
    if chosen_by_user(os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of no name
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    kept: list[int] = [mallopt(_TRIM_THRESHOLD, KEPT), mallopt(_MMAP_THRESHOLD, LARGEST)]
    return all(kept)
