"""The device that everything runs on, and the cores beside it."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from zsad.backbones.device_names import require_device
from zsad.errors import RequestError
from zsad.on_device import algorithms

_SHARE = [1.0]  # of a GPU's memory that this process may plan with


def choose_device(name: str) -> torch.device:
    """``auto``: CUDA, then Apple's, then the processor.  A process that Lightning started for one
    of several GPUs (``LOCAL_RANK``) takes its own.  Raises :class:`RequestError`."""
    require_device(name)
    # What cuBLAS needs to multiply in one order; it is read when the device starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if name == "auto":
        if torch.cuda.is_available():
            return _own(torch.device("cuda"))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = _own(torch.device(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError):
        raise RequestError(f"--device {name}: not available here; use auto or cpu") from None
    return device


def named_device(name: str | torch.device) -> torch.device:
    """A device as torch names it, whether it is there or not; ``auto``: CUDA where there is one,
    else the processor.  For weights that are loaded without a run; else :func:`choose_device`."""
    if str(name) != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _own(device: torch.device) -> torch.device:
    """The GPU of this process, where several share the work."""
    rank = os.environ.get("LOCAL_RANK", "")
    if device.type != "cuda" or device.index is not None or not rank.isdigit():
        return device
    return torch.device("cuda", int(rank))


def deterministically(wanted: bool, device: torch.device) -> AbstractContextManager[None]:
    """Within, torch takes deterministic algorithms, for pictures that are scored, if ``wanted``.

    Memory that nobody has written yet is not filled, which that switch would do as well: it costs
    a pass over every result, and no figure depends on it.

    Not on CUDA: there what scoring adds up in any order are whole numbers, but for a few sums that
    see to their order themselves (:func:`zsad.on_device.in_order`), and the switch would fill and
    sort where nothing needs it.  Training turns it on by itself."""
    if not wanted or device.type == "cuda":
        return nullcontext()
    return algorithms(deterministic=True, fill=False)


def share_memory(part: float) -> None:
    """Plan with ``part`` of every GPU's memory from now on: other processes use the rest."""
    _SHARE[0] = min(1.0, part)


def free_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that this process may plan with."""
    free, total = torch.cuda.mem_get_info(device)
    return int(min(free, total * _SHARE[0]))


def device_account(device: torch.device) -> dict[str, Any]:
    """The device as a manifest names it."""
    on_gpu = device.type == "cuda"
    return {
        "kind": device.type,
        "name": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
    }


MOST_THREADS = 8  # that decode by themselves: a GPU is busy with what they bring


def decoding_threads(wanted: int | str, device: torch.device) -> int:
    """How many threads decode: ``data.workers``, or for ``auto`` what suits the device."""
    if wanted != "auto":
        return int(wanted)
    if device.type == "cpu":
        return 1
    return max(1, min(usable_cores() // _processes() - 1, MOST_THREADS))


def _processes() -> int:
    """How many processes of one training share this machine, as their launcher says."""
    told = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE", "")
    return max(1, int(told)) if told.isdigit() else 1


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
