"""An extension of Griffe: docstrings of zsad, which are reStructuredText, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")
RULE = re.compile(r"=+(?:\s+=+)+")


def as_markdown(text: str) -> str:
    """Roles become code, tables and indented examples stay as they are typed."""
    out: list[str] = []
    rules = 0
    for line in text.splitlines():
        if RULE.fullmatch(line.strip()):
            rules += 1
            if rules == 1:
                out += ["```text", line]
                continue
            out.append(line)
            if rules == 3:
                out.append("```")
                rules = 0
            continue
        out.append(line if rules else ROLE.sub(r"`\1`", line))
    if rules:  # a table without a head has two rules
        last = max(i for i, line in enumerate(out) if RULE.fullmatch(line.strip()))
        out.insert(last + 1, "```")
    return "\n".join(out)


class Docstrings(griffe.Extension):
    """Turns the docstring of every object that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replace the text."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
