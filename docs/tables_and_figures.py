"""Write docs/tables-and-figures.md from benchmarks/tables_and_figures.yaml.

    python -m docs.tables_and_figures

What it says of a protocol (rows, backbones, datasets) is read from the protocol, so that a page
that is out of date fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from zsad import config as cfg
from zsad import registry
from zsad.protocols import Protocol, ProtocolRow, load_protocol

DOCS = Path(__file__).resolve().parent
LIST = DOCS.parent / "benchmarks" / "tables_and_figures.yaml"
PAGE = DOCS / "tables-and-figures.md"
SHOWN = "zsad tables --published"
HEAD = """# Tables and figures of the four papers

Every table and figure of the papers on FiLo, FAPrompt, ALFA and KAnoCLIP: the one command that
computes it, and what shows it afterwards; or why there is none. `DATA` is the folder that holds the
datasets; `--dry-run` says for every row its backbone, image size, preset, keys beside it and
training set. Protocols of FiLo need a detector's boxes, or `filo.grounding=none`. What a figure of
yours may be called equal to, `zsad tables --published` says beside it: see [reproduce a
paper](reproduce.md).
Made by `python -m docs.tables_and_figures`.
"""


@dataclass(frozen=True)
class Entry:
    """A table or figure: how it is computed and shown, or the ``reason`` why not."""

    what: str
    title: str
    protocol: str = ""
    rows: str = ""
    methods: str = ""
    datasets: str = ""
    overrides: str = ""
    shown: str = SHOWN
    command: str = ""
    reason: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        """The command, "" where there is none."""
        if not self.protocol:
            return self.command
        more = {"methods": self.methods, "datasets": self.datasets}
        parts = [f"zsad bench --protocol {self.protocol}"]
        parts += [f"--{key} {value}" for key, value in more.items() if value]
        parts += [f'--rows "{self.rows}"'] if self.rows else []
        parts += [self.overrides] if self.overrides else []
        return " ".join([*parts, "--data-root DATA"])


def papers() -> dict[str, tuple[str, list[Entry]]]:
    """Title and entries of every paper, in the order of the list."""
    return {
        name: (paper["title"], [Entry(**entry) for entry in paper["entries"]])
        for name, paper in cfg.read_yaml(LIST).items()
    }


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, entries in papers().values():
        parts.append(f"## {title}\n")
        parts.append("| | what | command | shown by |\n|---|---|---|---|")
        parts += [_line(entry) for entry in entries]
        parts.append("")
    return "\n".join(parts)


def _line(entry: Entry) -> str:
    notes = [entry.reason, _rows(entry), entry.note]
    text = ". ".join([entry.title, *(_sentence(n) for n in notes if n)])
    command = f"`{entry.line}`" if entry.line else "–"
    shown = f"`{entry.shown}`" if entry.protocol else "itself" if entry.command else "–"
    return f"| {entry.what} | {text} | {command} | {shown} |"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _rows(entry: Entry) -> str:
    """The rows of an entry that have a backbone of their own: "WinCLIP on `vit-b-16-plus-240`"."""
    if not entry.protocol:
        return ""
    found = load_protocol(entry.protocol)
    wanted = entry.methods.split(",") if entry.methods else []
    others = [
        f"{row.label or registry.method(row.method).title} on `{row.backbone}`"
        for row in chosen(found, entry.rows)
        if row.backbone and (not wanted or row.method in wanted)
    ]
    return ", ".join(others)


def chosen(protocol: Protocol, rows: str) -> list[ProtocolRow]:
    """The rows of a protocol that ``--rows`` names; all of them without it."""
    patterns = [name.strip().lower() for name in rows.split(",")] if rows else ["*"]
    return [
        row
        for row in protocol.rows
        if any(fnmatchcase((row.label or row.method).lower(), p) for p in patterns)
    ]


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
