"""Reads the tensors of a TorchScript archive without running anything in it.

OpenAI publishes CLIP as TorchScript archives: zip files with a pickled object tree
(``data.pkl``), raw tensor storages (``data/<key>``) and code.  The reader below walks the tree
with an unpickler that knows tensors, plain containers and inert stand-ins for script modules,
and refuses every other name.  The code part is not opened.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsad.errors import WeightsError

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _ScriptObject:
    """Stands in for a script module: keeps the attributes, has no behaviour."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


def is_archive(path: Path) -> bool:
    """Say whether a file is a TorchScript archive (and not a plain ``torch.save`` file)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as z:
        return any(name.endswith("/constants.pkl") for name in z.namelist())


def read_archive(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive by dotted attribute name.

    Raises :class:`WeightsError` if the archive refers to anything but tensors, plain
    containers and script modules.
    """
    with zipfile.ZipFile(path) as z:
        roots = [n[: -len("data.pkl")] for n in z.namelist() if n.endswith("/data.pkl")]
        root = min(roots, key=len)
        tree = _Reader(z, root, str(path)).load()
    state: dict[str, Tensor] = {}
    _collect(tree, "", state, set())
    return state


def _collect(node: Any, prefix: str, state: dict[str, Tensor], seen: set[int]) -> None:
    seen.add(id(node))  # a tree of a hostile file may hold itself
    for name, value in getattr(node, "attributes", {}).items():
        if isinstance(value, Tensor):
            state[f"{prefix}{name}"] = value
        elif isinstance(value, _ScriptObject) and id(value) not in seen:
            _collect(value, f"{prefix}{name}.", state, seen)


def _refuse_places(content: bytes, label: str) -> None:
    """Raise :class:`WeightsError` for a pickle that puts something at a place beyond its length:
    pickle's table of places grows as far, to 4 GB for a file of 300 bytes."""
    for code, place, _ in pickletools.genops(content):
        puts = code.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if puts and isinstance(place, int) and place > len(content):
            raise WeightsError(f"{label}: refused, its data names more objects than it has bytes")


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str, label: str) -> None:
        content = archive.read(f"{root}data.pkl")
        _refuse_places(content, label)
        super().__init__(io.BytesIO(content))
        self.archive = archive
        self.root = root
        self.label = label
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist"):
            return list
        if module == "torch.jit._pickle" and name == "build_tensorlist":
            return list
        if module == "torch.jit._pickle" and name == "restore_type_tag":
            return lambda value, type_name: value
        if module.startswith("__torch__"):
            return type(name, (_ScriptObject,), {})
        raise WeightsError(
            f"{self.label}: refused, its data refers to {module}.{name}; a weight archive holds "
            "tensors only"
        )

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise WeightsError(f"{self.label}: unknown storage entry")
        if key not in self.storages:
            raw = bytearray(self.archive.read(f"{self.root}data/{key}"))
            if len(raw) < count * dtype.itemsize:
                raise WeightsError(f"{self.label}: storage {key} is cut short")
            self.storages[key] = torch.frombuffer(raw, dtype=dtype, count=count)
        return self.storages[key]


def _rebuild_tensor(
    storage: Tensor, offset: int, size: Any, stride: Any, requires_grad: bool, hooks: Any, *_: Any
) -> Tensor:
    # as_strided checks that the view stays inside the storage
    return storage.as_strided(tuple(size), tuple(stride), offset)
