"""Says of a weight file by its content what it is.  No torch.

Three grades: *known* (its SHA-256 is that of a published file, in ``known_weights.csv``), *hub*
(it lies in the hub's cache under a repository and a commit, and its content has the hash that
names its blob there), *unknown* (anything else, whatever its name says).  The table's facts are
those of open_clip's and OpenAI's downloaders; each row names its source.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

Grade = Literal["known", "hub", "unknown", "bundled", "random", ""]
_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[^/]+)/")
_SHOWN = 12  # characters of a commit or a hash that are shown

RANDOM = "random backbone weights; figures mean nothing"
DEMONSTRATION = "bundled demonstration backbone; not comparable with published results"
UNKNOWN = "unknown weights"
OTHERS = "asked for"


@dataclass(frozen=True)
class KnownWeights:
    """A row of the table: a file with its hash, or the hub repository of a tag (no hash: what is
    downloaded from it is named by the hub)."""

    model: str
    tag: str
    file: str
    sha256: str
    bytes: str
    repository: str
    source: str

    @property
    def name(self) -> str:
        """Model and tag as open_clip writes them: "ViT-L-14-336/openai"."""
        return f"{self.model}/{self.tag}"


@dataclass(frozen=True)
class Origin:
    """What a content is.  ``name``: "MODEL/TAG" of a known file, "OWNER/REPO@COMMIT" of the hub,
    "" where it is unknown; ``note``: a sentence where that is not what was asked for, or ""."""

    grade: Grade
    name: str = ""
    note: str = ""


@cache
def table() -> tuple[KnownWeights, ...]:
    """All rows of ``known_weights.csv``."""
    text = (files("zsad.backbones") / "known_weights.csv").read_text(encoding="utf-8")
    return tuple(KnownWeights(**row) for row in csv.DictReader(text.splitlines()))


@cache
def by_hash() -> dict[str, KnownWeights]:
    """The published files by their SHA-256."""
    return {row.sha256: row for row in table() if row.sha256}


def origin(
    path: Path, sha256: str, model: str = "", tag: str = "", repositories: Collection[str] = ()
) -> Origin:
    """Grade a file of this content, and compare it with the ``model`` and ``tag`` asked for.

    An empty ``model`` or ``tag`` asks for nothing in particular.  ``repositories``: what else than
    the table says where the hub keeps the tag.
    """
    model = model.removesuffix("-quickgelu")  # the same weights under two of open_clip's names
    known = by_hash().get(sha256)
    if known is not None:
        fits = model in ("", known.model) and tag in ("", known.tag)
        return Origin("known", known.name, "" if fits else _other(model, tag, known.name))
    place = hub_place(path, sha256)
    if place is None:
        return Origin("unknown")
    repository, commit = place
    name = f"{repository}@{commit[:_SHOWN]}"
    return Origin("hub", name, _of_repository(repository, name, model, tag, repositories))


def banner(origin: Origin, demo: bool, source: str, sha256: str) -> str:
    """What every output made with weights has to say: that no paper used them (``demo``), that
    nobody published them, or that they are others than were asked for; else ""."""
    if origin.grade == "random":
        return RANDOM
    said = [DEMONSTRATION] if demo else []
    if origin.grade == "unknown":
        file = f"{source.partition(':')[2] or source}, sha256 {sha256[:_SHOWN]}"
        said.append(f"{UNKNOWN}: {file}, of no published file")
    if origin.note:
        said.append(origin.note)
    return "; ".join(said)


def hub_place(path: Path, sha256: str) -> tuple[str, str] | None:
    """Repository and commit under which a file lies in the hub's cache with the content that the
    hub named; None for any other file.

    The name of a blob is the SHA-256 that the hub announced for it.
    """
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE).resolve()
    place, blob = path.absolute().parent.resolve() / path.name, path.resolve()
    if not place.is_relative_to(root):
        return None
    found = _SNAPSHOT.match(place.relative_to(root).as_posix())
    if found is None or blob.name != sha256:
        return None
    if blob.parent != root / f"models--{found['owner']}--{found['name']}" / "blobs":
        return None
    return f"{found['owner']}/{found['name']}", found["commit"]


def _of_repository(
    repository: str, name: str, model: str, tag: str, repositories: Collection[str]
) -> str:
    """What to say of a repository's file that stands for a model and tag, or ""."""
    if not model:
        return ""
    rows = [row for row in table() if row.repository == repository]
    serves = any(row.model == model and tag in ("", row.tag) for row in rows)
    if not serves and repository not in repositories:
        return _other(model, tag, name)
    tags = {row.tag for row in table() if row.model == model} - {tag}
    if tag and any(repository.endswith(f".{other}") for other in tags):
        # open_clip's list gives a tag the repository of another one
        return _other(model, tag, name)
    return ""


def _other(model: str, tag: str, name: str) -> str:
    return f"{OTHERS} {model}{f'/{tag}' if tag else ''}, loaded {name}"
