"""What an ONNX model says of itself, read without the package onnx and before any runtime sees it.

The wire format of protocol buffers, as far as operators, shapes and constants need it.  What a
reader might take in two ways (a field that is given twice) is refused.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = {1: 4, 2: 1, 3: 1, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}  # bytes by element type
NUMBERS = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}  # that shapes are made of
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Fields = dict[int, list[Any]]


class GraphError(ValueError):
    """A graph that is not taken; the message says why."""


@dataclass(frozen=True)
class Value:
    """The element type (ONNX's number) and the shape of a tensor."""

    kind: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * SIZES[self.kind]


@dataclass(frozen=True)
class Node:
    """One operator: its type and the names of its inputs ("": left out) and outputs."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Model:
    """``values``: what is said of inputs, outputs and what lies between; ``constants``: shape and
    type by name; ``small``: the values of those that are small."""

    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Value] = field(default_factory=dict)
    small: dict[str, NDArray[Any]] = field(default_factory=dict)


def read(content: bytes, most_nodes: int) -> Model:
    """Read a model.  Raises :class:`GraphError` for one that is damaged, has functions, parts of
    its own domain or graphs within graphs, or keeps tensors elsewhere."""
    try:
        whole = _fields(memoryview(content))
        if 25 in whole:
            raise GraphError("holds functions")
        return _graph(_fields(_only(whole, 7)), most_nodes)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, OverflowError) as error:
        raise GraphError(f"is damaged ({type(error).__name__})") from None


def _graph(graph: Fields, most_nodes: int) -> Model:
    if 15 in graph or len(graph.get(1, [])) > most_nodes:
        raise GraphError(f"holds sparse tensors, or more than {most_nodes:,} operators")
    model = Model()
    for part in graph.get(5, []):
        name, value, numbers = _tensor(_fields(part))
        _put(model, name, value, numbers)
    for number, kept in ((11, model.inputs), (12, model.outputs), (13, model.values)):
        for part in graph.get(number, []):
            name, value = _value(_fields(part))
            if name in kept:
                raise GraphError(f"describes {name!r} twice")
            kept[name] = value
    for part in graph.get(1, []):
        _node(model, _fields(part))
    return model


def _node(model: Model, told: Fields) -> None:
    kind = _text(_only(told, 4))
    if 7 in told and _text(told[7][-1]) not in ("", "ai.onnx"):
        raise GraphError(f"holds an operator of another domain, {kind!r}")
    if 8 in told:
        raise GraphError(f"holds an operator with overloads, {kind!r}")
    inputs, outputs = (tuple(map(_text, told.get(n, []))) for n in (1, 2))
    attributes = {_text(_only(a, 1)): a for a in map(_fields, told.get(5, []))}
    for attribute in attributes.values():
        if attribute.keys() & {6, 10, 11, 22, 23, 14, 15}:
            raise GraphError(f"holds graphs within graphs or tensors in attributes of {kind!r}")
        if 5 in attribute:  # a tensor
            _, value, numbers = _tensor(_fields(_only(attribute, 5)))
            if kind == "Constant":
                _put(model, outputs[0], value, numbers)
            elif math.prod(value.shape) > 1:
                raise GraphError(f"holds a tensor in an attribute of {kind!r}")
    if kind != "Constant":
        model.nodes.append(Node(kind, inputs, outputs))
    elif outputs[0] not in model.constants:
        raise GraphError("holds a constant that is not a tensor")


def _put(model: Model, name: str, value: Value, numbers: NDArray[Any] | None) -> None:
    if name in model.constants:
        raise GraphError(f"describes {name!r} twice")
    model.constants[name] = value
    if numbers is not None:
        model.small[name] = numbers


def _tensor(told: Fields) -> tuple[str, Value, NDArray[Any] | None]:
    """Name, value and, of a small tensor, its numbers.  Its bytes must all be there."""
    if 13 in told or any(told.get(14, [])):
        raise GraphError("keeps tensors in other files")
    name = _text(told[8][-1]) if 8 in told else ""
    shape, kind = tuple(_numbers(told.get(1, []))), int(_only(told, 2))
    if kind not in SIZES or any(d < 0 for d in shape):
        raise GraphError(f"holds a tensor of a kind that is not known, {name!r}")
    value = Value(kind, shape)
    raw = _only(told, 9) if 9 in told else None
    if raw is None or len(raw) != value.bytes:
        if raw is None and not math.prod(shape):
            raw = b""
        elif raw is not None or not told.keys() & {4, 5, 7, 10, 11}:
            raise GraphError(f"claims a tensor of {value.bytes:,} bytes that it does not hold")
        else:
            return name, value, _typed(told, value)
    small = kind in NUMBERS and math.prod(shape) <= 64
    numbers = np.frombuffer(raw, NUMBERS[kind]).reshape(shape) if small else None
    return name, value, numbers


def _typed(told: Fields, value: Value) -> NDArray[Any] | None:
    """The numbers of a tensor that are given one by one."""
    count = math.prod(value.shape)
    if value.kind == 7:
        numbers = _numbers(told.get(7, []))
        if len(numbers) == count:
            return np.array(numbers, np.int64).reshape(value.shape)
    held = sum(len(p) if isinstance(p, memoryview) else 8 for n in (4, 5, 7, 10, 11)
               for p in told.get(n, []))  # fmt: skip
    if held * 8 < count:  # a byte holds one number at most
        raise GraphError(f"claims a tensor of {value.bytes:,} bytes that it does not hold")
    return None


def _value(told: Fields) -> tuple[str, Value]:
    name = _text(_only(told, 1))
    kind = _fields(_only(told, 2))
    if kind.keys() - {1, 6}:
        raise GraphError(f"has {name!r}, which is not a tensor")
    tensor = _fields(_only(kind, 1))
    shape = []
    for part in _fields(_only(tensor, 2)).get(1, []):
        dimension = _fields(part)
        if 1 not in dimension or 2 in dimension:
            raise GraphError(f"does not say the shape of {name!r}")
        shape.append(_signed(_only(dimension, 1)))
    element = int(_only(tensor, 1))
    if element not in SIZES or any(d < 0 for d in shape):
        raise GraphError(f"does not say the shape of {name!r}")
    return name, Value(element, tuple(shape))


# ---------------------------------------------------------------------------- the wire format
def _fields(message: memoryview) -> Fields:
    """The fields of a message by number, in order."""
    if not isinstance(message, memoryview):
        raise TypeError("no message")
    found: Fields = defaultdict(list)
    for number, value in _walk(message):
        found[number].append(value)
    return dict(found)


def _walk(message: memoryview) -> Iterator[tuple[int, Any]]:
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise GraphError("is damaged (a field of no known kind)")
        if at + size > end:
            raise GraphError("is damaged (cut off)")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise GraphError("is damaged (a number without end)")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _numbers(parts: Sequence[Any]) -> list[int]:
    """Whole numbers, packed or one by one."""
    found: list[int] = []
    for part in parts:
        if isinstance(part, int):
            found.append(_signed(part))
            continue
        at = 0
        while at < len(part):
            value, at = _varint(part, at)
            found.append(_signed(value))
    return found


def _only(told: Fields, number: int) -> Any:
    parts = told[number]
    if len(parts) != 1:
        raise GraphError(f"gives field {number} twice")
    return parts[0]


def _text(part: Any) -> str:
    return bytes(part).decode()
