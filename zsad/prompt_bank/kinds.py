"""Kinds of texts about categories, as methods bring them along.  No torch.

A method that reads texts made by a language model says in its ``config.yaml`` which kind that is::

    prompt_kind: "package.prompts:KIND"   # a PromptKind, in a module without torch

Bank, generation and checks know nothing else about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zsad import registry
from zsad.errors import RequestError, unknown
from zsad.types import Category

Label = Literal["normal", "abnormal"]


@dataclass(frozen=True)
class TextList:
    """A list of texts that an entry holds for a category.

    ``least`` and ``most``: how many texts, in a bank that passes its check.  ``label``: what the
    texts speak about; a text that denies it is not taken.  ``required``: whether an entry without
    the list is refused.  ``asked``: how many a language model has to give, where that is more than
    ``least``; it is asked again below.
    """

    name: str
    least: int
    most: int
    label: Label = "abnormal"
    required: bool = True
    asked: int = 0


@dataclass(frozen=True)
class Query:
    """One question about a category.  ``target``: the list that its answer goes into;
    ``samples``: how often it is asked."""

    prompt: str
    target: str
    samples: int
    temperature: float


def no_problems(text: str, target: TextList, class_name: str) -> list[str]:
    """A check that finds nothing."""
    return []


@dataclass(frozen=True)
class PromptKind:
    """One kind of texts, from the question to the check.

    ``name``: that of its folder in the bank.  ``queries(category)``: what a model is asked.
    ``read(answer, target, category)``: the usable texts of one answer, in order; what is not
    a description is dropped (see :mod:`zsad.prompt_bank.parsing`).  ``problems(text, target,
    class_name)``: what is wrong with a generated text, besides what is wrong for every kind.
    ``image_query(category)``: the question that goes with a training image, if the method learns
    from such answers; each becomes one text (see :mod:`zsad.prompt_bank.vision`).

    Raises ``ValueError`` for a kind without a list, and for two lists of one name.
    """

    name: str
    lists: tuple[TextList, ...]
    queries: Callable[[Category], Sequence[Query]]
    read: Callable[[str, TextList, Category], list[str]]
    problems: Callable[[str, TextList, str], list[str]] = no_problems
    image_query: Callable[[Category], str] | None = None

    def __post_init__(self) -> None:
        names = [known.name for known in self.lists]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"prompt kind '{self.name}': give lists of different names")

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the lists that every entry has."""
        return tuple(known.name for known in self.lists if known.required)


def kinds() -> dict[str, PromptKind]:
    """All kinds by name, in the order of their methods.

    Several methods may name the same object.  Raises :class:`RequestError` for a target that
    cannot be imported or is not a kind, and for two kinds of one name.
    """
    found: dict[str, PromptKind] = {}
    owners: dict[str, str] = {}
    for entry in registry.methods().values():
        if not entry.prompt_kind:
            continue
        kind = registry.load_object(entry.prompt_kind, f"prompt kind of method '{entry.name}'")
        if not isinstance(kind, PromptKind):
            raise RequestError(
                f"{entry.origin}: prompt_kind {entry.prompt_kind} is a {type(kind).__name__}; "
                f"name a zsad.prompt_bank.kinds.PromptKind"
            )
        if found.setdefault(kind.name, kind) is not kind:
            raise RequestError(
                f"prompt kind '{kind.name}' is defined twice: by {owners[kind.name]} and by "
                f"{entry.origin}; rename one"
            )
        owners.setdefault(kind.name, entry.origin)
    return found


def find_kind(name: str) -> PromptKind:
    """The kind of that name.  Raises :class:`RequestError` with the nearest one."""
    known = kinds()
    if name not in known:
        raise unknown("kind of prompts", name, known)
    return known[name]


def image_query_of(kind: PromptKind) -> Callable[[Category], str]:
    """The question of a kind about images.  Raises :class:`RequestError` where it has none."""
    if kind.image_query is None:
        asking = [name for name, known in kinds().items() if known.image_query is not None]
        noun, verb = ("kind", "asks") if len(asking) == 1 else ("kinds", "ask")
        raise RequestError(f"--images: only the {noun} {', '.join(asking)} {verb} about images")
    return kind.image_query
