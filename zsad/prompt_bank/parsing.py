"""Turns a model's answer into descriptions, strictly: everything else is dropped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from zsad.errors import DataError
from zsad.io import dump_json, parse_json
from zsad.io.bounds import ANSWER, ANSWER_DEPTH

BULLET = re.compile(r"^\s*(?:[-*\u2022\u2013\u2014+]|\(?\d{1,3}[.):]|[a-z]\))\s+", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])")
REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)? (?:sorry|unable|not able|cannot|can't|can not)|as an ai|language model|"
    r"i (?:do not|don't) (?:have|see|know)|cannot (?:provide|assist|help|determine)|"
    r"unable to (?:provide|view|see))\b",
    re.IGNORECASE,
)
# An answer is data for an encoder.  What addresses a reader, a program or a browser is refused.
SUSPICIOUS = re.compile(
    r"https?://|www\.|<\s*(?:/\s*)?[a-z!]|[{}\\`]|\$\(|"
    r"\bignore (?:all|any|the|previous|prior|your)\b|"
    r"\b(?:system|developer) (?:prompt|message)\b|\bassistant\b|\binstructions?\b|\bapi[ _-]?key\b|"
    r"\bpassword\b|\bexecute\b|\bsudo\b|\bimport os\b|\bjailbreak\b|\bdisregard\b",
    re.IGNORECASE,
)
NEGATED_DEFECT = re.compile(
    r"\b(?:no|not|without|free (?:of|from)|absence of|lacks?|lacking|never|neither|none|nor)\b|"
    r"-free\b|n't\b",
    re.IGNORECASE,
)
DEFECT_WORDS = re.compile(
    r"\b(?:defects?|defective|damage[ds]?|scratch(?:es|ed)?|cracks?|cracked|broken|stain(?:s|ed)?|"
    r"dents?|dented|torn|lesions?|tumou?rs?|polyps?|ha?emorrhages?|abnormal\w*|anomal\w+|flaws?|"
    r"flawed|rust(?:ed|y)?|corroded|corrosion|contaminat\w+|missing|chipped)\b",
    re.IGNORECASE,
)
FENCE = re.compile(r"```[a-z]*")
HEADER = re.compile(r":\s*$|^#|^\*\*.*\*\*:?$")
LONGEST_WORD = 60  # characters; no word of a description has more
LEAD_IN = re.compile(
    r"^(?:sure|certainly|of course|here (?:are|is)|below|okay|ok)\b", re.IGNORECASE
)


def suspicious(text: str) -> bool:
    """Whether a text holds instructions, markup or addresses instead of a description."""
    return bool(SUSPICIOUS.search(text)) or not all(map(_harmless, text))


def _harmless(c: str) -> bool:
    """Whether a character is a letter, a sign or a blank: none that steers a terminal, turns the
    direction of writing or is not seen."""
    return c.isprintable() or c in "\n\r\t" or unicodedata.category(c) == "Zs"


def tainted(answer: str) -> bool:
    """Whether any part of an answer is suspicious: such an answer is refused as a whole."""
    body = unfenced(answer)
    return any(map(suspicious, items(answer) if body[:1] in "[{" else [body]))


def contradicts(text: str, label: str) -> bool:
    """Whether a description denies its label: "no defect" under abnormal, "cracked" under normal.

    Under ``normal`` a defect word is allowed only in a negation.
    """
    negated = bool(NEGATED_DEFECT.search(text))
    if label == "abnormal":
        return negated and bool(
            re.search(
                r"\b(?:no|without|free (?:of|from)|absence of|lacks? any)\s+(?:\w+\s+){0,2}"
                r"(?:defect|damage|anomal|abnormal|flaw|sign)|\b(?:defect|damage|blemish)-free\b|"
                r"\b(?:is|are|looks?|appears?) (?:not (?:abnormal|damaged|defective)|normal)\b",
                text,
                re.IGNORECASE,
            )
        )
    return bool(DEFECT_WORDS.search(text)) and not negated


def items(answer: str) -> list[str]:
    """Split an answer into items: a JSON list of texts, bulleted or numbered lines, or lines.

    Broken or truncated JSON and JSON of any other form give nothing.
    """
    if len(answer) > ANSWER.value():
        return []
    body = unfenced(answer)
    if body[:1] in "[{":
        try:
            value: Any = parse_json(body, "answer", depth=ANSWER_DEPTH.value())
            body.encode()
            dump_json(value).encode()  # half of a character, which no file could hold
        except (DataError, ValueError):
            return []
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            return []
        return [tidy(v) for v in value if v.strip()]
    lines = [line for line in body.splitlines() if line.strip()]
    marked = [line for line in lines if BULLET.match(line)]
    chosen = marked or lines
    found = [tidy(BULLET.sub("", line)) for line in chosen]
    return [t for t in found if t and not HEADER.search(t) and not LEAD_IN.match(t)]


def unfenced(answer: str) -> str:
    """The answer without blanks, and the fence of a block of code, around it."""
    body = answer.strip()
    if opened := FENCE.match(body):
        body = body[opened.end() :]
    return body.strip().removesuffix("```").strip()


def continued(answer: str) -> str:
    """The answer to a question that ends with a bullet: its first line is an item, too."""
    text = answer.lstrip()
    return text if text[:1] in "[{`" or BULLET.match(text) else f"- {text}"


def tidy(text: str) -> str:
    """One line, without markdown emphasis, quotes and doubled blanks."""
    plain = re.sub(r"\*\*|__|[\u201c\u201d]", "", text)
    return " ".join(plain.split()).strip(" \"'")


def usable(text: str, label: str, least: int, most: int) -> bool:
    """Whether an item may be kept: of sensible length, no question, refusal, order or denial."""
    words = text.split()
    return (
        least <= len(words) <= most
        and max(map(len, words), default=0) <= LONGEST_WORD
        and not text.endswith("?")
        and not REFUSAL.search(text)
        and not suspicious(text)
        and not contradicts(text, label)
    )


def anomaly_types(answer: str, most: int = 10) -> list[str]:
    """Short phrases, at most ``most``, in lower case and without a closing full stop."""
    if tainted(answer):
        return []
    found = []
    for item in items(answer):
        text = item.split(":")[0].rstrip(".").strip().lower()
        if usable(text, "abnormal", 1, 10):
            found.append(text)
    return list(dict.fromkeys(found))[:most]


def sentences(answer: str, label: str, least: int = 4, most: int = 40) -> list[str]:
    """Whole sentences of an answer, in order, without repetitions."""
    if tainted(answer):
        return []
    found = []
    for item in items(answer):
        found += [s for s in map(tidy, SENTENCE.split(item)) if usable(s, label, least, most)]
    return distinct(found)


def clipped(text: str, tokens: Callable[[str], int], most: int = 77) -> str:
    """Cut a text at a clause, else at a word, so that it takes at most ``most`` tokens."""
    while tokens(text) > most:
        head = re.split(r"[,;:.](?=\s)", text)[:-1]
        cut = text[: len(text) - len(re.split(r"[,;:.](?=\s)", text)[-1]) - 1] if head else ""
        text = (cut or text.rsplit(" ", 1)[0]).rstrip(" ,;:")
        if " " not in text:
            break
    return text


def description(answer: str, label: str, least: int = 4) -> str:
    """An answer as one text: its usable sentences, each but the last ended by a mark.

    '' where they have fewer than ``least`` words together.
    """
    *head, last = sentences(answer, label, 1) or [""]
    text = " ".join([*(s if s[-1:] in ".!?" else f"{s}." for s in head), last])
    return text if len(text.split()) >= least else ""


def answered(answer: str) -> bool:
    """Whether an answer says anything: it is neither a refusal nor suspicious.

    Unlike :func:`sentences` it takes "there are no anomalies" for an answer, too.
    """
    return bool(items(answer)) and not tainted(answer) and not REFUSAL.search(answer)


def distinct(texts: list[str]) -> list[str]:
    """The texts in order, without those that differ in case or the closing full stop alone."""
    return list({t.lower().rstrip("."): t for t in reversed(texts)}.values())[::-1]
