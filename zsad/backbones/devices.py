"""The device that everything runs on, and the cores beside it."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from zsad.errors import RequestError


def choose_device(name: str) -> torch.device:
    """``auto``: CUDA, then Apple's, then the processor.  Raises :class:`RequestError`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise RequestError(f"--device {name}: not available here; use auto or cpu") from None
    return device


def device_account(device: torch.device) -> dict[str, Any]:
    """The device as a manifest names it."""
    on_gpu = device.type == "cuda"
    return {
        "kind": device.type,
        "name": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def core_to_spare(device: torch.device) -> bool:
    """Whether a thread can decode while the encoder runs without taking a core from it.

    Where torch computes on all cores, each of its operators waits for the slowest of them: a
    thread beside it then costs more than the waiting that it saves."""
    return device.type != "cpu" or torch.get_num_threads() < usable_cores()


def usable_cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
