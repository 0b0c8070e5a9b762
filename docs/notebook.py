"""Make ``docs/first-steps.ipynb`` out of ``docs/first_steps.py``: run it, keep what it shows.

    python -m docs.notebook

The source is Python with cells that begin with ``# %%`` (``# %% [markdown]`` for text), as editors
know it.  Cells run in this process, in a folder of their own; outputs are what Jupyter would store.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("first_steps.py")
NOTEBOOK = Path(__file__).with_name("first-steps.ipynb")
MARK = "# %%"
FORMATS = {"_repr_html_": "text/html", "_repr_jpeg_": "image/jpeg"}


@dataclass(frozen=True)
class Cell:
    """A cell of the source.  ``text``: its code, or its Markdown."""

    code: bool
    text: str


def main() -> None:
    """Run the source and write the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(notebook(cells(SOURCE), Path(folder)), indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(text + "\n", encoding="utf-8")
    print(f"{NOTEBOOK}: {len(text) // 1024} KiB")


def cells(source: Path) -> list[Cell]:
    """The cells of a source."""
    found: list[Cell] = []
    for part in f"\n{source.read_text(encoding='utf-8')}".split(f"\n{MARK}")[1:]:
        kind, _, text = part.partition("\n")
        if "[markdown]" in kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines()]
            found.append(Cell(False, "\n".join(lines).strip()))
        else:
            found.append(Cell(True, text.strip()))
    return found


def notebook(found: list[Cell], folder: Path) -> dict[str, Any]:
    """The notebook, ready for JSON, with the outputs of its cells; they run in ``folder``."""
    names: dict[str, Any] = {"__name__": "__notebook__"}
    made: list[dict[str, Any]] = []
    with _within(folder):
        for number, cell in enumerate(found, start=1):
            entry: dict[str, Any] = {
                "cell_type": "code" if cell.code else "markdown",
                "id": f"cell-{number}",
                "metadata": {},
                "source": cell.text.splitlines(keepends=True),
            }
            if cell.code:
                count = sum(c.code for c in found[:number])
                entry |= {"execution_count": count, "outputs": outputs(cell.text, names, count)}
            made.append(entry)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def outputs(code: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run a cell and return what it shows: what it prints, and the value of its last line."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    found: list[dict[str, Any]] = []
    if text := printed.getvalue():
        lines = text.splitlines(keepends=True)
        found.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        found.append(
            {
                "data": shown(value),
                "execution_count": count,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return found


def shown(value: Any) -> dict[str, Any]:
    """A value by media type: as HTML or a picture where it has such a form, and as text."""
    data: dict[str, Any] = {}
    for method, media in FORMATS.items():
        made = getattr(value, method, lambda: None)()
        if isinstance(made, bytes):
            data[media] = base64.b64encode(made).decode()
        elif made is not None:
            data[media] = made.splitlines(keepends=True)
    plain = f"<{type(value).__name__}>" if "image/jpeg" in data else repr(value)
    return {**data, "text/plain": plain.splitlines(keepends=True)}


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main()
