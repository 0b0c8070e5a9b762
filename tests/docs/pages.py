"""Reads the fenced blocks of a Markdown page and the markers that say how to test them.

A marker is an HTML comment on the line above a fence, invisible to a reader of the page:

``<!-- test: plan, REASON -->``
    ``bench`` runs with ``--dry-run`` (a whole plan is made, nothing is computed); every other
    command is checked as by ``parse``.
``<!-- test: parse, REASON -->``
    Every command is parsed: verb, options and their values.  For what needs a network or real
    weights, or would take too long.
``<!-- test: exit 3, REASON -->``
    The block runs, and its last command ends with that code.
``<!-- file: PATH -->``
    The block is a file: it is written below the folder in which the page's commands run.

Without a marker a block of commands or Python is run for real.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

COMMANDS = ("console", "bash", "sh", "shell")
SHOWN = ("text", "json", "yaml", "latex", "csv", "diff", "toml", "markdown", "html")
_MARKER = re.compile(r"<!--\s*(test|file):\s*(.+?)\s*-->")
_TEST = re.compile(r"(plan|parse|exit (\d))(?:,\s*(.+))?")


@dataclass(frozen=True)
class Block:
    """``line``: of the opening fence, from 1.  ``mode``: run, plan or parse; ``code``: the exit
    code that is expected; ``path``: of a block that is a file, "" otherwise."""

    page: Path
    line: int
    language: str
    text: str
    mode: str = "run"
    code: int = 0
    reason: str = ""
    path: str = ""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.name}, line {self.line}"

    def commands(self) -> list[str]:
        """The commands of the block, continued lines joined, comments and prompts left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [line.strip().removeprefix("$ ") for line in lines]
        return [line for line in found if line and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page.  Raises ``ValueError`` for a marker that is not understood
    or stands before no fence, and for a fence that is not closed."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None  # line, fence, language
    body: list[str] = []
    marker: re.Match[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        stripped = line.strip()
        if opened is not None:
            if stripped == opened[1]:
                found.append(_block(page, opened[0], opened[2], "\n".join(body), marker))
                opened, body, marker = None, [], None
            else:
                body.append(line)
            continue
        if fence := re.match(r"(`{3,}|~{3,})\s*(\S*)$", stripped):
            opened = number, fence[1], fence[2]
            continue
        if marker is not None and stripped:
            raise ValueError(f"{page.name}, line {number}: the marker above belongs to no block")
        marker = _MARKER.search(line) or marker
    if opened is not None:
        raise ValueError(f"{page.name}, line {opened[0]}: the block is not closed")
    return found


def _block(page: Path, line: int, language: str, text: str, marker: re.Match[str] | None) -> Block:
    block = Block(page, line, language, text)
    if marker is None:
        return block
    if marker[1] == "file":
        return Block(page, line, language, text, path=marker[2])
    test = _TEST.fullmatch(marker[2])
    if test is None or not test[3]:
        raise ValueError(
            f"{block.place}: marker '{marker[0]}' needs plan, parse or exit N, and why"
        )
    mode = "run" if test[2] else test[1]
    return Block(page, line, language, text, mode, int(test[2] or 0), test[3])
