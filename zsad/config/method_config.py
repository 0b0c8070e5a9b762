"""What the framework asks of a method's configuration.  Torch-free: planning loads it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from zsad import config as cfg
from zsad.errors import nearest

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound="MethodConfig")

CaptionSource = Literal["off", "mask", "endpoint", "auto"]


class _Fallback(Generic[T]):
    """A value that instances have and the class does not show.

    ``dataclass`` takes a class attribute that a base left behind for the default of a field of
    that name; it finds none here, so a sub-class may declare the field with or without one.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __get__(self, instance: object, owner: type) -> T:
        if instance is None:
            raise AttributeError("only instances have it")
        return self.value


def _fallback(value: T) -> T:
    """Return ``value`` as an attribute that a field may take the place of."""
    return cast(T, _Fallback(value))


ALL_SHOTS = -1  # what `shots: all` is held as, in a config, an identity and a record


def shots_in_words(shots: int) -> str:
    """A number of reference images as headings say it: "4-shot", "full-shot"."""
    return "full-shot" if shots == ALL_SHOTS else f"{shots}-shot"


def as_written(key: str, value: Any) -> Any:
    """A value of a method's key as users write it: ``shots: all``."""
    return "all" if (key, value) == ("shots", ALL_SHOTS) else value


class MethodConfig:
    """Base of every method's config, a frozen dataclass in the method's ``config.py``.

    A sub-class declares its keys as fields; ``preset: str`` is one of them, and ``shots: int``
    (and ``references``, how they are drawn) for a method that can refer to normal images.  Nothing
    that this base adds is a field, so nothing of it enters the hash of a result.

    ``full_shot``: whether ``shots: all`` may be written, every normal training image of a category.
    ``prompt_kind``: the kind of texts of the prompt bank that prompts or training read, "" for
    none: their content enters the identity of results and checkpoints.
    ``inference_only``: dotted keys (or groups of keys) that change nothing but inference: one
    checkpoint serves all their values.
    ``cosmetic``: dotted keys (or groups) that change no figure, or whose effect a record states
    elsewhere (which boxes there were): two values of them are one configuration.

    A key that is added after results were stored is declared with :func:`zsad.config.added`.
    A misspelt name of this class in a sub-class is a ``TypeError``.
    """

    preset: str
    shots: int = _fallback(0)  # normal reference images per category; 0 = zero-shot
    references: str = _fallback("distinct")  # or "replacement": the same image may come twice
    full_shot: ClassVar[bool] = False
    prompt_kind: ClassVar[str] = ""
    inference_only: ClassVar[tuple[str, ...]] = ()
    cosmetic: ClassVar[tuple[str, ...]] = ()

    @property
    def caption_source(self) -> CaptionSource:
        """Which sentences about training images the method's ``begin_training`` wants.

        ``off`` none; ``mask`` written from the training annotation; ``endpoint`` cached answers
        of a vision model; ``auto`` the answers where cached, else from the annotation.
        """
        return "off"

    @property
    def caption_all(self) -> bool:
        """Whether normal training images are described, too."""
        return False

    @property
    def caption_count(self) -> int:
        """How many of a vision model's answers about an image are read, one text each."""
        return 1

    @property
    def own_words(self) -> str:
        """The file whose texts take the place of the prompt bank's, '' where none does."""
        return ""

    def for_target(self: ConfigT, dataset: str) -> ConfigT:
        """The configuration that the target ``dataset`` is evaluated with ("": pictures of none),
        where the authors' scripts differ from dataset to dataset.  Not for a trained method."""
        return self

    def own_readings(self) -> dict[str, Any]:
        """What was chosen where the paper is silent, by key; records and the manifest hold it."""
        return {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hints = inspect.get_annotations(cls)
        fields = {n for n, hint in hints.items() if not _is_class_variable(hint)}
        for name in sorted(fields & {*CLASS_VARIABLES, *QUESTIONS}):
            how = f"{name}: ClassVar[...]" if name in CLASS_VARIABLES else f"def {name}(self)"
            raise TypeError(f"'{name}' is not a key of a config; write it as `{how}`")
        for name, value in vars(cls).items():
            if name.startswith("_") or name in fields or isinstance(value, type):
                continue
            if isinstance(value, (types.FunctionType, property, classmethod, staticmethod)):
                meant = nearest(name, QUESTIONS, 0.85)
                if name not in QUESTIONS and meant:
                    raise TypeError(f"the framework never asks for '{name}'{meant}")
            elif name not in CLASS_VARIABLES:
                meant = nearest(name, CLASS_VARIABLES)
                raise TypeError(
                    f"unknown class variable '{name}'{meant}; a config may set "
                    f"{', '.join(CLASS_VARIABLES)}, everything else is a typed field"
                )


OF_TRAINING = (
    "train",
    "loss",
    "lr",
)  # groups of keys of a trained method that inference does not read
CLASS_VARIABLES = ("full_shot", "prompt_kind", "inference_only", "cosmetic")
QUESTIONS = (
    *("caption_source", "caption_all", "caption_count"),
    *("own_words", "own_readings", "for_target"),
)


def _is_class_variable(hint: Any) -> bool:
    if isinstance(hint, str):
        return re.match(r"(\w+\.)?ClassVar\b", hint) is not None
    return hint is ClassVar or typing.get_origin(hint) is ClassVar


# ---------------------------------------------------------------------- at registration
def check_schema(schema: object, defaults: Mapping[str, Any]) -> type[MethodConfig]:
    """Return a method's ``schema`` if the framework can ask it everything that it needs.

    ``defaults``: the values of the method's ``config.yaml``.  Raises ``ValueError`` that says
    what to write.
    """
    if not isinstance(schema, type) or not issubclass(schema, MethodConfig):
        raise ValueError(
            "is not a MethodConfig; write `from zsad.config.method_config import MethodConfig` and "
            "`class Config(MethodConfig):` below @dataclass(frozen=True)"
        )
    if not dataclasses.is_dataclass(schema) or "__dataclass_fields__" not in vars(schema):
        raise ValueError("is not a dataclass; write @dataclass(frozen=True) above it")
    if not schema.__dataclass_params__.frozen:  # what is hashed must not change afterwards
        raise ValueError("is not frozen; write @dataclass(frozen=True) above it")
    hints = typing.get_type_hints(schema)
    for name, kind in (("preset", str), ("shots", int)):
        if name in schema.__dataclass_fields__ and hints[name] is not kind:
            raise ValueError(f"key '{name}' must be of type {kind.__name__}")
    if "preset" not in schema.__dataclass_fields__:
        raise ValueError("has no key 'preset'; write `preset: str` as its first field")
    if not isinstance(schema.prompt_kind, str):
        raise ValueError(f"prompt_kind={schema.prompt_kind!r} must be text")
    for name in ("inference_only", "cosmetic"):
        keys = getattr(schema, name)
        if not isinstance(keys, tuple):
            raise ValueError(f"{name}={keys!r} must be a tuple of keys")
        for dotted in keys:
            _check_key(schema, str(dotted).split("."), str(dotted), name)
    _check_added(schema, defaults, "")
    return schema


def _check_key(schema: type, path: list[str], dotted: str, where: str) -> None:
    """Raise ``ValueError`` unless the key below ``path`` exists."""
    head, *rest = path
    names = [f.name for f in dataclasses.fields(schema)]
    if head not in names:
        raise ValueError(
            f"{where} names '{dotted}', and there is no such key{nearest(head, names)}"
        )
    groups = _groups(typing.get_type_hints(schema)[head])
    if rest and not groups:
        raise ValueError(f"{where} names '{dotted}', and '{head}' has no keys")
    for group in groups if rest else ():
        _check_key(group, rest, dotted, where)


def _groups(hint: Any) -> list[type]:
    """The dataclasses that a value of this type may be."""
    options = typing.get_args(hint) or (hint,)
    return [o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)]


def _check_added(schema: type, defaults: Mapping[str, Any], prefix: str) -> None:
    """Raise ``ValueError`` where ``config.yaml`` gives a later key another default than the
    field: every stored result would be computed again."""
    hints = typing.get_type_hints(schema)
    for f in dataclasses.fields(schema):
        given = defaults.get(f.name, dataclasses.MISSING)
        if cfg.is_added(f):
            plain = cfg.plain(cfg.default_of(f))
            if given not in (dataclasses.MISSING, plain):
                raise ValueError(
                    f"key '{prefix}{f.name}' was added with the default {plain!r}, and config.yaml "
                    f"says {given!r}; results stored before would no longer be found"
                )
        elif isinstance(given, Mapping):
            for group in _groups(hints[f.name]):
                _check_added(group, given, f"{prefix}{f.name}.")
