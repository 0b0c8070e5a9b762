"""Names and texts that foreign folders, archives and files hold, for tests of whole kinds."""

from __future__ import annotations

import os

# What is in a name, by what is odd about it.  All of them are file names on Linux.
NAMES: dict[str, str] = {
    "letters": "图片 größe Я ñ",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "only bytes": os.fsdecode(b"\xff\xfe\x80"),
    "line ends": "a\nb\r\nc\u2028d\u2029e\x85f",
    "terminal codes": "\x1b[31mred\x1b[0m\x9b2J\x07\x08\x7f",
    "a title for the terminal": "\x1b]0;owned\x07",
    "right to left": "\u202egnp.exe\u2066\u2069\u200f",
    "zero width": "pay\u200bpal\u200d\ufeff",
    "rich markup": "zz[red]x[link=a]y",
    "HTML": "<img src=x onerror=alert(1)>",
    "a formula": "=cmd|' C'!A0",
    "LaTeX": r"\input{x}%$&_^~#{}",
    "Markdown": "[x](y) | **b** `c` <u>",
    "percent": "100%41 %u0041 %~ %",
    "long letters": "图" * 82,
    "long": "x" * 245,
    "blanks": " a  b ",
    "dots": "..a..",
    "an option": "--out",
    "a setting": "a=b",
}

# What else a text may hold that is not a file name: a class of somebody's ``meta.json``.
TEXTS: dict[str, str] = {
    **NAMES,
    "closing markup": "zz[/b][red]x[/][link=http://a]",
    "a path": "../../etc/x",
    "a zero byte": "a\0b",
    "half a character": "a\ud83d",
    "an end of a script": "</script><script>alert(1)</script>{{SCRIPT}}",
}


def is_plain(text: str) -> bool:
    """Whether a terminal, a log or a page shows a text as it is: nothing in it acts."""
    return all(c.isprintable() or c in "\n\u00a0\u202f\u3000" for c in text)
