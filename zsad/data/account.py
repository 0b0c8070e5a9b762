"""What every file below a folder was taken for.  No image is decoded, no torch.

One entry a file, so that nothing is left out without a word: a picture with its label, the mask of
a picture, or a file that is left out with the reason.  A picture that has no role makes the folder
be refused (see :func:`Account.refuse`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from zsad.errors import RequestError, counted, few, shown

Role = Literal["normal", "anomalous", "training", "mask", "left out", "no role"]
# How a line of the account counts each role: (one file, several files).
SAID: dict[Role, tuple[str, str]] = {
    "normal": ("normal", "normal"),
    "anomalous": ("anomalous", "anomalous"),
    "training": ("training picture", "training pictures"),
    "mask": ("mask", "masks"),
    "left out": ("left out", "left out"),
    "no role": ("WITHOUT A ROLE", "WITHOUT A ROLE"),
}
MOST_FOLDERS = 60  # printed; `--json` has every file


class Entry(NamedTuple):
    """One file.  ``path``: below the folder, with forward slashes.  ``of``: the picture that a
    mask belongs to.  ``reason``: why it is left out or has no role, and remarks otherwise."""

    path: str
    role: Role
    category: str = ""
    of: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Account:
    """All files below ``root``, each once, sorted by path."""

    root: str
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, root: object, entries: Iterable[Entry]) -> Account:
        """The account of ``entries`` in any order.  Raises ``ValueError`` for a file that two
        entries name: it would have two roles."""
        found = tuple(sorted(entries))
        twice = [path for path, n in Counter(e.path for e in found).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0]}: has two roles")
        return cls(str(root), found)

    def counts(self) -> dict[Role, int]:
        """How many files have each role, zeros included."""
        found = Counter(e.role for e in self.entries)
        return {role: found[role] for role in SAID}

    @property
    def without_role(self) -> list[Entry]:
        """Pictures that nothing says anything about."""
        return [e for e in self.entries if e.role == "no role"]

    def folders(self) -> dict[str, list[Entry]]:
        """The entries by their folder ("." is the root), sorted."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(str(PurePosixPath(entry.path).parent), []).append(entry)
        return dict(sorted(found.items()))

    def lines(self, most: int = MOST_FOLDERS) -> list[str]:
        """A line for each folder, and one that adds up."""
        folders = self.folders()
        out = [f"{shown(name)}/: {_counted(entries)}" for name, entries in folders.items()]
        if len(out) > most:
            out[most:] = [
                f"and {counted(len(out) - most, 'more folder')}; `--json` lists every file"
            ]
        return [
            *out,
            f"{counted(len(self.entries), 'file')} in all: {_counted(self.entries, reasons=False)}",
        ]

    def document(self) -> dict[str, Any]:
        """JSON-ready: the counts and every file."""
        return {
            "root": self.root,
            "files": len(self.entries),
            "roles": self.counts(),
            "entries": [e._asdict() for e in self.entries],
        }

    def refuse(self, way_out: str) -> None:
        """Raise :class:`RequestError` if a picture has no role: it names the first three."""
        strays = self.without_role
        if not strays:
            return
        named = few(f"{shown(e.path)} ({e.reason})" for e in strays)
        what = counted(len(strays), "picture has", "pictures have")
        raise RequestError(f"folder:{self.root}: {what} no role: {named}; {way_out}")


def _counted(entries: Iterable[Entry], *, reasons: bool = True) -> str:
    """``4 normal, 2 left out (1 hidden, 1 not a picture)``"""
    groups: dict[Role, Counter[str]] = {}
    for entry in entries:
        groups.setdefault(entry.role, Counter())[entry.reason] += 1
    parts = []
    for role, said in SAID.items():
        if role not in groups:
            continue
        count = groups[role].total()
        text = f"{count} {said[count > 1]}"
        why = [(n, r) for r, n in sorted(groups[role].items()) if r]
        if reasons and why:
            alone = len(why) == 1 and why[0][0] == count
            text += f" ({why[0][1] if alone else '; '.join(f'{n} {r}' for n, r in why)})"
        parts.append(text)
    return ", ".join(parts) or "nothing"
