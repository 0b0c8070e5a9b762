"""Reads files of tensors, of backbones and of trained states, without running anything in them.

Formats, told apart by content, not by ending: ``.safetensors``; pickles of ``torch.save``, read
with ``weights_only=True``; TorchScript archives, whose tensors are read by the restricted reader
of :mod:`zsad.backbones.torchscript` (``torch.jit.load`` would compile an archive's code and run
its set-state functions).

What a file says about its tensors is not believed: only dense ones that hold no more than the
file does come out of here.  Every refusal names the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsad.backbones.torchscript import is_archive, read_archive
from zsad.errors import WeightsError, ZsadError, gist, is_out_of_memory
from zsad.io.foreign import describe_file

State = dict[str, Tensor]

# Bytes to which a zipped file may unpack, if it has packed its tensors: torch itself packs none.
PACKED_RATIO = 8
PACKED_FROM = 64 * 2**20
# What torch says of a pickle that names anything but what tensors are made of.
_FOREIGN_OBJECT = re.compile("WeightsUnpickler|weights_only|Weights only")
_GLOBAL = re.compile(r"GLOBAL ([\w.]{1,100})")
SHARED = 2  # how often the same bytes may stand for tensors: tied weights stand for two
REPEATED = 8  # how often one tensor may stand under several names: a module that layers share


def read_tensors(path: Path | str, what: str = "not a readable weight file") -> Any:
    """Read tensors in plain containers, as they lie in the file.

    ``what``: how a file that cannot be read is called.
    Raises :class:`WeightsError` for a file that is missing, broken, holds objects that could run
    code, or tensors that are not dense, or larger than the file.
    """
    path = Path(path)
    room = _room(path)
    try:
        with naming(path, what):
            found = _read(path)
    except (MemoryError, RuntimeError) as error:
        if not (is_out_of_memory(error) and _fits(SHARED * room)):
            raise  # there is no memory even for what the file holds
        raise WeightsError(
            f"{path}: {what} (it claims more values than its {path.stat().st_size:,} bytes hold)"
        ) from None
    _check_storage(path, found, room)
    return found


def _read(path: Path) -> Any:
    if is_safetensors(path):
        from safetensors.torch import load_file

        return load_file(str(path))
    return read_archive(path) if is_archive(path) else _unpickled(path)


def _fits(size: int) -> bool:
    """Whether ``size`` bytes of memory can be had."""
    try:
        torch.empty(size, dtype=torch.uint8)
    except (MemoryError, RuntimeError):
        return False
    return True


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and not zipfile.is_zipfile(path)


@contextlib.contextmanager
def naming(path: Path | str, what: str) -> Iterator[None]:
    """Let whatever goes wrong with the content of a file be an error of ours that names it.

    ``what``: the words before the cause of a foreign error, which becomes a
    :class:`WeightsError`.
    """
    try:
        yield
    except ZsadError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # broken files fail in many ways
        if is_out_of_memory(error):
            raise
        words = describe_file(path)
        cause = f"it is {words}" if words else gist(error)
        raise WeightsError(f"{path}: {what} ({cause})") from None


def check_values(path: Path | str, state: Mapping[str, Any]) -> None:
    """Raise :class:`WeightsError` unless all values are tensors of finite floating numbers."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: '{name}' is a {type(value).__name__}, not a tensor")
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{path}: '{name}' holds {kind} values, not floating-point ones; give the weights "
                "as they were trained"
            )
        if not is_finite(value):
            raise WeightsError(
                f"{path}: '{name}' holds values that are not finite numbers; the file is damaged, "
                "or its training failed"
            )


def values_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the order."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def is_finite(value: Tensor) -> bool:
    """Whether no value is infinite or NaN."""
    # A sum is finite only if its terms are, and needs no memory; where it overflows, look at each.
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many types
        text = str(error)
        if describe_file(path) or not _FOREIGN_OBJECT.search(text):
            raise
        found = _GLOBAL.search(text)
        name = f" ({found[1]})" if found else ""
        raise WeightsError(
            f"{path}: refused, it holds objects other than tensors and plain containers{name}, "
            "which could run code; save its state dict alone"
        ) from None


def _room(path: Path) -> int:
    """How many bytes of tensors a file may hold: its own, or what its zip members unpack to."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise WeightsError(f"{path}: not a file; give the path of a weight file")
        if not zipfile.is_zipfile(path):
            return size
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; give the path of a weight file") from None
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: not a readable weight file ({gist(error)})") from None
    if unpacked > max(PACKED_FROM, PACKED_RATIO * size):
        raise WeightsError(
            f"{path}: {size:,} bytes that unpack to {unpacked:,}; refused, give a file that torch "
            "wrote"
        )
    return max(size, unpacked)


def _check_storage(path: Path, found: Any, room: int) -> None:
    """Raise :class:`WeightsError` for a tensor that is not dense or not backed by the file."""
    total = 0
    names: Counter[tuple[Any, ...]] = Counter()  # of one and the same tensor
    for name, tensor in tensors_in(found):
        reason = _oddity(tensor)
        if reason:
            raise WeightsError(
                f"{path}: '{name}' is {reason}; save the weights as ordinary dense tensors"
            )
        size = tensor.numel() * tensor.element_size()
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        names[same] += 1
        if names[same] == 1 or names[same] > REPEATED:
            total += size
        if size > tensor.untyped_storage().nbytes() or total > SHARED * room:
            raise WeightsError(
                f"{path}: '{name}' {tuple(tensor.shape)} claims more values than the file holds; "
                "refused"
            )


def _oddity(tensor: Tensor) -> str:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_nested:
        return f"a {type(tensor).__name__}"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return "quantised"
    if tensor.device.type != "cpu":  # "meta": a shape without values
        return f"without values (device {tensor.device})"
    return ""


def tensors_in(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested containers with their dotted names.

    A container that is there several times (it may hold itself) is looked into once.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name or "the tensor", value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            inside = [(f"{name}.{key}" if name else str(key), inner) for key, inner in pairs]
            waiting += reversed(inside)
