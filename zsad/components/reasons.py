"""What is said for a score: near-synonyms together, and only reasons that fit what was decided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from zsad.errors import few
from zsad.types import Explanation

ALSO = 3  # other wordings that a merged reason quotes

# Words that say nothing about what is seen: grammar, and the picture as such.
_EMPTY = frozenset(
    word
    for line in (
        "a an the this that of with in on at to by and or is are it its has have from for some",
        "visible image picture photo photograph showing shows show appearance looking look",
        "region area",
        "industrial manufacturing quality inspection close up cropped high resolution",
        "medical clinical diagnostic",
    )
    for word in line.split()
)
_NEGATION = frozenset({"no", "not", "without", "free", "never"})
# Words for the same, each by its beginning; the first line that knows one decides ("flawless" is
# looked up before "flaw").  The first of a line stands for all of them.
_SAME = tuple(
    tuple(line.split())
    for line in (
        "fine normal flawless perfect unblemish intact healthy unremark undamag good spotless "
        "pristine uniform",
        "flaw damag defect fault imperfect blemish abnormal anomal diseas patholog unhealth broken "
        "irregular",
        "scratch scrape scuff",
        "crack fractur split",
        "hole puncture opening perforat",
        "stain blot smear spot",
        "dent deform",
        "discolor discolour tint",
        "contaminat dirt foreign",
        "missing absent",
    )
)


def merged(reasons: Sequence[Explanation], class_name: str) -> list[Explanation]:
    """Put reasons together that say the same, in place of the best of them.

    The same say texts of one label whose words agree but for grammar, the class name and
    near-synonyms: "damaged leather" and "leather with flaw".  The note quotes up to :data:`ALSO`
    others that differ in more than grammar.  Regions of the picture are kept apart.
    """
    kept: dict[object, Explanation] = {}
    others: dict[object, list[str]] = {}
    spoken: set[object] = set()
    for i, reason in enumerate(reasons):
        words = gist(reason.text, class_name)
        key: object = i if reason.label == "region" else (reason.label == "normal", words)
        wording = key, frozenset(_words(reason.text, class_name))
        if key not in kept:
            kept[key] = reason
        elif wording not in spoken:
            others.setdefault(key, []).append(reason.text)
        spoken.add(wording)
    return [
        replace(reason, note=_with_others(reason.note, others[key])) if key in others else reason
        for key, reason in kept.items()
    ]


def _with_others(note: str, others: Sequence[str]) -> str:
    also = "also: " + few((f"'{text}'" for text in others), ALSO)
    return f"{also}; {note}" if note else also


def gist(text: str, class_name: str) -> frozenset[str]:
    """The words of a text that say what is seen, near-synonyms as one.

    A denied flaw is its opposite: "without damage" says what "flawless" says, and so does a text
    that holds nothing but the class name.
    """
    words = _words(text, class_name)
    denied = any(w in _NEGATION for w in words)
    found = {_meaning(w) for w in words if w not in _NEGATION}
    if denied and found <= {"flaw", "fine"}:
        return frozenset({"fine"})
    found = {"fine"} if not found else found | ({"not"} if denied else set())
    general = found & {"flaw", "fine"}
    return frozenset(found - general if found - general else found)


def _words(text: str, class_name: str) -> list[str]:
    """The words of a text but for grammar and the class name."""
    name = set(re.findall(r"\w+", class_name.lower()))
    return [w for w in re.findall(r"\w+", text.lower()) if w not in _EMPTY and w not in name]


def _meaning(word: str) -> str:
    for first, *others in _SAME:
        if any(word.startswith(w) for w in (first, *others)):
            return first
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def nth(rank: int) -> str:
    """What goes before a superlative: '' for the first, then "second ", "third ", "4th "."""
    return {1: "", 2: "second ", 3: "third "}.get(rank, f"{rank}th ")


def fitting(reasons: Sequence[Explanation], anomalous: bool | None, most: int) -> list[Explanation]:
    """At most ``most`` reasons in words and ``most`` regions, those that fit what was decided.

    A picture that is called normal gets reasons of label ``normal`` alone, one that is called
    anomalous all others; None: nothing was decided, and the best of all are taken, but for
    normal ones beside nothing but regions, which can only be asserted.  Ranks are counted anew.
    """
    if anomalous is None and all(r.label in ("region", "normal") for r in reasons):
        anomalous = any(r.label == "region" for r in reasons) or None
    fit = [r for r in reasons if anomalous is None or (r.label == "normal") != anomalous]
    places = [r for r in fit if r.label == "region"][:most]
    words = [r for r in fit if r.label != "region"][:most]
    groups = (words, places) if fit and fit[0].label != "region" else (places, words)
    return [replace(r, rank=i) for group in groups for i, r in enumerate(group, start=1)]
