"""Pages that a browser opens from disk: templates, scripts, and texts made safe for them."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zsad.errors import shown

ASSETS = Path(__file__).parent / "assets"


def asset(name: str) -> str:
    """The text of a file of this room."""
    return (ASSETS / name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with every ``{{NAME}}`` of ``parts`` in its place.

    Filled in one pass: what a part contains is never taken for a mark.
    """
    out = []
    for piece in template.split("{{"):
        name, close, rest = piece.partition("}}")
        out.append(parts[name] + rest if close and name in parts else piece)
    return "".join(out)


def html_text(text: object) -> str:
    """A foreign text as HTML, for content and for attributes in quotes."""
    return html.escape(shown(text), quote=True)


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its texts hold, with texts as they are
    shown: scripts put them into the page as they are.  NaN and infinities become null."""
    text = json.dumps(_shown(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {shown(key): _shown(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # such as a sum of times that no sound run has
    return shown(value) if isinstance(value, str) else value
