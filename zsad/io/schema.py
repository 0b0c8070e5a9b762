"""Reads foreign values into dataclasses: the one place where they are checked against types.

A schema is a (possibly nested) dataclass.  What is read comes from YAML, JSON or a caller, and
nothing is converted that could mean something else: text is never a number, ``true`` never 1.
Supported field types: ``bool``, ``int``, ``float``, ``str``, ``Literal``, ``X | None``, unions,
``list[X]``, ``Sequence[X]``, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``,
``Mapping[str, X]``, nested dataclasses and ``Any``.  A field whose ``metadata`` holds
``{"key": "class"}`` is called ``class`` in the mapping; an empty key keeps it out of the mapping.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

from zsad.errors import counted, nearest
from zsad.io.environment import concealed

T = TypeVar("T")
MOST = 2**63 - 1  # of a whole number: torch, NumPy and Arrow hold no larger one

# (key, message of a schema's own check or "") -> the place a value came from; "" for unknown
Origin = Callable[[str, str], str]


class SchemaError(ValueError):
    """A value that does not fit its schema; the message is one line that names its key."""


def read(
    schema: type[T],
    values: Any,
    *,
    origin: str | Origin = "",
    prefix: str = "",
    others: bool = False,
) -> T:
    """Check the mapping ``values`` against ``schema`` and return an instance of it.

    ``origin`` (a file, "the command line") and ``prefix`` ("winclip.") appear in errors.
    ``others``: pass over keys that the schema does not know.  Raises :class:`SchemaError`.
    """
    reader = _Reader(_origin(origin), builds=True, others=others)
    return typing.cast("T", reader.group(values, schema, prefix.rstrip(".")))


def check(
    schema: type[Any], values: Any, *, origin: str | Origin = "", prefix: str = ""
) -> dict[str, Any]:
    """Check what ``values`` gives of ``schema``; return it as plain nested mappings.

    No key has to be there.  Raises :class:`SchemaError`.
    """
    reader = _Reader(_origin(origin), builds=False, others=False)
    return typing.cast("dict[str, Any]", reader.group(values, schema, prefix.rstrip(".")))


def convert(value: Any, hint: Any, *, key: str, origin: str | Origin = "") -> Any:
    """Return ``value`` as the type ``hint``.  Raises :class:`SchemaError`."""
    return _Reader(_origin(origin), builds=True, others=False).value(value, hint, key)


def _origin(origin: str | Origin) -> Origin:
    return (lambda key, message: origin) if isinstance(origin, str) else origin


@cache
def _fields(schema: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """The fields that a mapping may give, by their key there, with their types."""
    hints = typing.get_type_hints(schema)
    named = ((f.metadata.get("key", f.name), f) for f in dataclasses.fields(schema) if f.init)
    return {key: (f, hints[f.name]) for key, f in named if key}


_BARE_WORDS = (
    *(("off", False), ("no", False), ("on", True), ("yes", True)),
    *(("none", None), ("null", None)),
)
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class _Reader:
    """Converts values.  ``builds``: groups become instances that lack no key, else they stay
    mappings of what is given; ``others``: keys that a schema does not know are passed over."""

    origin: Origin
    builds: bool
    others: bool

    def value(self, value: Any, hint: Any, key: str) -> Any:
        """Return ``value`` as the type ``hint``."""
        if hint is Any:
            return value
        if dataclasses.is_dataclass(hint):
            return self.group(value, hint, key)
        arguments = typing.get_args(hint)
        how = _KINDS.get(typing.get_origin(hint) or hint)
        if how is not None:
            return how(self, value, arguments, key)
        return self.scalar(value, hint, key)

    def group(self, values: Any, schema: Any, key: str) -> Any:
        """A nested dataclass."""
        if not isinstance(values, Mapping):
            raise self.wrong(key, values, "a group of keys")
        fields, prefix = _fields(schema), f"{key}." if key else ""
        found: dict[str, Any] = {}
        for name, value in values.items():
            if name in fields:
                found[name] = self.value(value, fields[name][1], f"{prefix}{name}")
            elif not self.others:
                raise SchemaError(
                    f"unknown key '{prefix}{name}'{self.place(f'{prefix}{name}')}"
                    f"{nearest(str(name), fields)}; valid: {', '.join(sorted(fields))}"
                )
        if not self.builds:
            return found
        for name, (f, _) in fields.items():
            optional = (f.default, f.default_factory) != (dataclasses.MISSING,) * 2
            if name not in found and not optional:
                raise SchemaError(f"key '{prefix}{name}' is missing{self.place(key)}; add it")
        try:
            return schema(**{fields[name][0].name: value for name, value in found.items()})
        except SchemaError:
            raise
        except ValueError as error:  # a schema's own __post_init__ check
            title = f"{key}: " if key else ""
            raise SchemaError(f"{title}{error}{self.place(key, str(error))}") from None

    def union(self, value: Any, options: tuple[Any, ...], key: str) -> Any:
        """The first option that fits."""
        if value is None and type(None) in options:
            return None
        last = SchemaError(key)
        for option in options:
            if option is not type(None):
                try:
                    return self.value(value, option, key)
                except SchemaError as error:
                    last = error
        raise last

    def literal(self, value: Any, options: tuple[Any, ...], key: str) -> Any:
        """One of some words or numbers."""
        for word, as_read in _BARE_WORDS:  # YAML reads a bare `off` as a boolean
            if value is as_read and word in options:
                value = word
        for option in options:
            if value == option and type(value) is type(option):  # 1, 1.0 and True are equal
                return option
        names = [str(o) for o in options]
        raise SchemaError(
            f"{key}={_brief(value)}{self.place(key)} is not one of: {', '.join(names)}"
            f"{nearest(str(value), names)}"
        )

    def items(self, value: Any, arguments: tuple[Any, ...], key: str) -> list[Any]:
        """A list of any length."""
        if not isinstance(value, (list, tuple)):
            raise self.wrong(key, value, "a list")
        hint = arguments[0] if arguments else Any
        return [self.value(v, hint, f"{key}[{i}]") for i, v in enumerate(value)]

    def sequence(self, value: Any, arguments: tuple[Any, ...], key: str) -> Any:
        """A tuple of any length, or of the one that the type says."""
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(self.items(value, arguments[:1], key))
        found = self.items(value, (Any,), key)
        if len(found) != len(arguments):
            raise self.wrong(key, value, f"a list of {counted(len(arguments), 'value')}")
        pairs = enumerate(zip(found, arguments))
        return tuple(self.value(v, hint, f"{key}[{i}]") for i, (v, hint) in pairs)

    def mapping(self, value: Any, arguments: tuple[Any, ...], key: str) -> dict[str, Any]:
        """Values of one type under any names."""
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "a mapping")
        hint = arguments[1] if arguments else Any
        return {str(k): self.value(v, hint, f"{key}.{k}") for k, v in value.items()}

    def scalar(self, value: Any, hint: Any, key: str) -> Any:
        """A truth value, a number or text; a whole number may stand for a fractional one."""
        accepted = (int, float) if hint is float else hint
        known = hint in _NAMES and isinstance(value, accepted)
        if known and (hint is bool or not isinstance(value, bool)):
            if hint is not float and type(value) is int and not -MOST <= value <= MOST:
                raise SchemaError(
                    f"{key}={_brief(value)}{self.place(key)}: far too large; "
                    f"whole numbers end at {MOST}"
                )
            try:
                number = float(value) if hint is float else value
            except OverflowError:  # a whole number that no float can hold
                number = math.inf
            if hint is float and not math.isfinite(number):
                raise self.wrong(key, value, "a finite number")
            return number
        raise self.wrong(key, value, _NAMES.get(hint, str(hint)))

    def wrong(self, key: str, value: Any, wanted: str) -> SchemaError:
        kind = type(value).__name__
        if not key:
            return SchemaError(f"must be {wanted}, not {kind}{self.place(key)}")
        shown = _brief(value)
        return SchemaError(f"{key}={shown}{self.place(key)} must be {wanted}, not {kind}")

    def place(self, key: str, message: str = "") -> str:
        found = self.origin(key, message)
        return f" ({found})" if found else ""


def _brief(value: Any) -> str:
    """A value as an error repeats it: short, and without what came from the environment."""
    return reprlib.repr(concealed(value))


_KINDS: dict[Any, Callable[[_Reader, Any, tuple[Any, ...], str], Any]] = {
    typing.Union: _Reader.union,
    types.UnionType: _Reader.union,
    Literal: _Reader.literal,
    list: _Reader.items,
    Sequence: _Reader.items,
    tuple: _Reader.sequence,
    dict: _Reader.mapping,
    Mapping: _Reader.mapping,
}
