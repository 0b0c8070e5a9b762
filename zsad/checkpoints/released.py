"""Released weight files, recognised by their content: what they were trained on, whom they serve.

``benchmarks/released_files.csv`` holds the SHA-256 or the git blob id of every file whose content
is publicly known; names of files say nothing (a folder named after VisA holds what was trained on
MVTec).  No torch: a plan must know what a run would load.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from zsad.io.digests import remembered_sha256

ANY = "*"  # of `serves`: every dataset that it was not trained on
BLOCK = 1 << 20  # bytes that are read at a time


@dataclass(frozen=True)
class Content:
    """What names a file by its content: SHA-256, and the id that git gives it."""

    sha256: str
    git_blob: str


@dataclass(frozen=True)
class ReleasedFile:
    """A row of the table.

    ``method``: ours, or ``groundingdino``; "" for what is not hosted.  ``trained_on``: datasets,
    none for a detector of the open vocabulary; ``part`` of them, "" where it is not known.
    ``serves``: target datasets that its authors evaluate it on, or :data:`ANY`.  ``evaluated``:
    whether their scripts use this file (they publish every epoch and test the last);
    ``authors``: whether it is theirs.  ``backbone``, ``image_size`` (pixels) and ``preset``: what
    their scripts evaluate it with.  ``eval_options``: these and the rest, in their own words.
    ``trap``: what its name or its papers get wrong.
    """

    method: str
    title: str
    file: str
    where: str
    content: Content
    trained_on: tuple[str, ...]
    part: str
    epoch: int
    serves: tuple[str, ...]
    evaluated: bool
    authors: bool
    backbone: str
    image_size: int
    preset: str
    eval_options: str
    trap: str

    @property
    def name(self) -> str:
        """How messages and records call it: "AnomalyCLIP 9_12_4_multiscale/epoch_15.pth"."""
        return f"{self.title.split(' (')[0]} {self.file}"

    @property
    def official(self) -> bool:
        """Whether the authors' own figures are of this file."""
        return self.authors and self.evaluated

    def saw(self, target: str) -> bool:
        """Whether it was trained on images of ``target``."""
        return target in self.trained_on

    def serves_target(self, target: str) -> bool:
        """Whether its authors evaluate it on ``target``."""
        return not self.saw(target) and (target in self.serves or ANY in self.serves)

    @property
    def serves_words(self) -> str:
        """The targets in words."""
        if ANY in self.serves:
            return "every other dataset" if self.trained_on else "every dataset"
        return ", ".join(self.serves) or "none"

    def misfits(self, used: Mapping[str, Any]) -> list[str]:
        """In what an evaluation differs from that of its authors' scripts.

        ``used``: any of ``backbone``, ``image_size`` and ``preset``.
        """
        wanted = {
            "backbone": self.backbone,
            "image size": self.image_size,
            "preset": self.preset,
        }
        found = {k.replace("_", " "): v for k, v in used.items()}
        return [
            f"{key} {found[key]}, not {value}"
            for key, value in wanted.items()
            if value and key in found and found[key] != value
        ]


def recognise(path: Path | str) -> ReleasedFile | None:
    """The row of a file, by its content; None for one that the table does not hold."""
    known = _by_hash(released_files())
    # Most rows have a SHA-256, which is remembered between runs; git's id costs another reading.
    return known.get(remembered_sha256(path)) or known.get(_git_blob(path))


def by_content(content: Content) -> ReleasedFile | None:
    """The row of a content."""
    known = _by_hash(released_files())
    return known.get(content.sha256) or known.get(content.git_blob)


def content_of(path: Path | str) -> Content:
    """Name a file by its content."""
    return Content(remembered_sha256(path), _git_blob(path))


def _git_blob(path: Path | str) -> str:
    stat = Path(path).stat()
    stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return _blob_of(str(Path(path).resolve()), stamp)


@cache
def _blob_of(path: str, stamp: tuple[int, ...]) -> str:
    """Git's id of a file, remembered in this process while nothing of its ``stamp`` changes."""
    blob = hashlib.sha1(f"blob {stamp[0]}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            blob.update(block)
    return blob.hexdigest()


@cache
def released_files() -> tuple[ReleasedFile, ...]:
    """The whole table."""
    text = (files("zsad.benchmarks") / "released_files.csv").read_text(encoding="utf-8")
    return tuple(
        ReleasedFile(
            method=row["method"],
            title=row["title"],
            file=row["file"],
            where=row["where"],
            content=Content(row["sha256"], row["git_blob_sha1"]),
            trained_on=tuple(row["trained_on"].split()),
            part=row["trained_part"],
            epoch=int(row["epoch"] or 0),
            serves=tuple(row["serves"].split()),
            evaluated=row["evaluated"] == "yes",
            authors=row["authors"] == "yes",
            backbone=row["backbone"],
            image_size=int(row["image_size"] or 0),
            preset=row["preset"],
            eval_options=row["eval_options"],
            trap=row["trap"],
        )
        for row in csv.DictReader(text.splitlines())
    )


@cache
def _by_hash(rows: tuple[ReleasedFile, ...]) -> dict[str, ReleasedFile]:
    """The rows by each of their hashes."""
    return {h: r for r in rows for h in (r.content.sha256, r.content.git_blob) if h}
