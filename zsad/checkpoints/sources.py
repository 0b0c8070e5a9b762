"""The value of an option that names weight files, one for all targets or one for each.

``METHOD.checkpoint`` and a detector's ``grounding.weights`` are read here, so that both are
written the same way::

    FILE                         the same file for every target dataset
    FOLDER                       its files; which of them serves a target is found by content
    hf://OWNER/REPO@REVISION     the files of a hub repository, at one revision of it
    local-dir:PATH               a copy of a hub repository in a folder
    bundled                      the states that come with the method
    {visa: A, mvtec: B}          any of these by target; ``default``: for the targets not named

No torch: a plan must know which files a run would load.  Nothing is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.backbones.reachable import is_offline, unreachable
from zsad.errors import RequestError, WeightsError, gist, nearest
from zsad.io.names import at_home

EVERY = "default"  # the key of a mapping that stands for the targets it does not name
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")  # of files of weights
BUNDLED = "bundled"  # the states that come with a method
FORMS = "FILE, FOLDER, {TARGET: FILE, ...}, hf://OWNER/REPO@REVISION or local-dir:PATH"

_WEIGHTS = re.compile(rf"(?i).*({'|'.join(map(re.escape, ENDINGS))})(\.tar(-\d+)?)?")
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[^\s@]+)")


def _without_epoch(path: Path) -> Path | None:
    """``state.pth`` for ``state_12.pth``; None for a name that ends in no number."""
    head, _, number = path.stem.rpartition("_")
    return path.with_name(head + path.suffix) if head and number.isdecimal() else None


@dataclass(frozen=True)
class Place:
    """Where weights lie.  ``text``: as it was written; ``path``: a file or a folder of files, None
    for one of the words that an option knows (``stock``); ``hub``: ``OWNER/REPO@REVISION`` of what
    came from the hub, else ""."""

    text: str
    path: Path | None
    hub: str = ""

    @property
    def is_folder(self) -> bool:
        return self.path is not None and self.path.is_dir()

    def files(self) -> list[Path]:
        """The file itself, or the weight files of the folder and of those in it, by name."""
        if self.path is None:
            return []
        if not self.path.is_dir():
            return [self.path]
        found = (p for p in self.path.rglob("*") if _WEIGHTS.fullmatch(p.name))
        return sorted(p for p in found if p.is_file())

    def states(self, companions: Iterable[str] = ()) -> list[Path]:
        """The files that a state may be loaded from, where some lie beside others: without those
        ``companions``, and without the epochs NAME_5.pth of a series whose last is NAME.pth."""
        alone = set(companions)
        found = self.files()
        if not alone or len(found) == 1:
            return found
        return [p for p in found if p.name not in alone and _without_epoch(p) not in found]


@dataclass(frozen=True)
class Sources:
    """The places that an option names.  ``option``: how it is called; ``of_target``: the place of
    every target, under :data:`EVERY` that of all others."""

    option: str
    of_target: Mapping[str, Place]

    def of(self, target: str) -> Place:
        """The place for a target dataset.  Raises :class:`RequestError` with the list."""
        found = self.of_target.get(target) or self.of_target.get(EVERY)
        if found is None:
            listed = ", ".join(f"{name}: {place.text}" for name, place in self.of_target.items())
            raise RequestError(
                f"{self.option}: no file for the target {target}; it has {{{listed}}}; add "
                f"`{target}: FILE` to it, or leave {target} out of --datasets"
            )
        return found

    def check(self, targets: Iterable[str], known: Iterable[str] = ()) -> None:
        """Raise :class:`RequestError` for a target without a place, and for a name in the mapping
        that is neither a target of this run nor another ``known`` dataset."""
        targets = list(targets)
        names = [*targets, *known, EVERY]
        for name in self.of_target:
            if name not in names:
                raise RequestError(
                    f"{self.option}: '{name}' is not a dataset{nearest(name, names)}; the targets "
                    f"are {', '.join(targets)}"
                )
        for target in targets:
            self.of(target)

    def absolute(self) -> Sources:
        """The same with paths that mean the same in any folder."""
        places = {
            name: Place(p.text, p.path and p.path.absolute(), p.hub)
            for name, p in self.of_target.items()
        }
        return Sources(self.option, places)

    def __str__(self) -> str:
        if list(self.of_target) == [EVERY]:
            return self.of_target[EVERY].text
        return f"{{{', '.join(f'{n}: {p.text}' for n, p in self.of_target.items())}}}"


def parse(
    value: Any,
    option: str,
    origin: str = "",
    *,
    words: Iterable[str] = (),
    folders: Mapping[str, Path] | None = None,
    offline: bool = False,
) -> Sources:
    """Read the value of ``option`` (``filo.checkpoint``), which ``origin`` gave it.

    ``words``: those that name weights without a file, taken as they are.  ``folders``: words that
    stand for a folder (``bundled``).  ``offline``: a repository must lie in the hub's cache;
    otherwise it is fetched into it.
    Raises :class:`RequestError` for another form and for what is not there, and
    :class:`WeightsError` for a repository that cannot be had.
    """
    where = f" ({origin})" if origin else ""
    known = folders or {}
    if isinstance(value, Mapping):
        if not value:
            raise RequestError(f"{option}={{}}{where}: names no file; give {FORMS}")
        places = {
            str(target): _place(one, f"{option}={{{target}: {one}}}{where}", words, known, offline)
            for target, one in value.items()
        }
        return Sources(option, places)
    return Sources(
        option, {EVERY: _place(value, f"{option}={value}{where}", words, known, offline)}
    )


def _place(
    value: Any, said: str, words: Iterable[str], folders: Mapping[str, Path], offline: bool
) -> Place:
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise RequestError(f"{said}: names no file; give {FORMS}")
    text = str(value)
    if text in words:
        return Place(text, None)
    if text in folders:
        place = Place(text, folders[text])
        if not place.is_folder or not place.files():
            raise RequestError(f"{said}: none comes with zsad for this method; give {FORMS}")
        return place
    if text.startswith("hf:"):
        return _of_hub(text, said, offline)
    folder_only = text.startswith("local-dir:")
    path = at_home(text.removeprefix("local-dir:"))
    if folder_only and not path.is_dir():
        raise RequestError(f"{said}: no such folder; give the copy of a hub repository")
    if not path.exists():
        raise RequestError(f"{said}: no such file or folder; give {FORMS}")
    place = Place(text, path)
    if path.is_dir() and not place.files():
        raise RequestError(f"{said}: no weight files there ({', '.join(ENDINGS)})")
    return place


def _of_hub(text: str, said: str, offline: bool) -> Place:
    """The folder of a hub repository's files in the hub's cache."""
    match = _HUB.fullmatch(text)
    if match is None:
        hint = "name a revision, since what a branch holds changes" if "@" not in text else ""
        raise RequestError(f"{said}: not hf://OWNER/REPO@REVISION{hint and '; '}{hint}")
    repo, revision = match["repo"], match["revision"]
    how: dict[str, Any] = {
        "revision": revision,
        "allow_patterns": [*(f"*{ending}*" for ending in ENDINGS), "*.json"],
    }
    place = Place(text, _cached(repo, how), f"{repo}@{revision}")
    if not place.files():
        if is_offline(offline):
            raise WeightsError(
                f"{said}: not in the hub's cache on this machine; fetch it once with "
                f"`hf download {repo} --revision {revision}`"
            )
        if reason := unreachable("huggingface.co", hub=True):
            raise WeightsError(f"{said}: cannot be fetched ({reason})")
        place = Place(text, _fetched(repo, how, said), place.hub)
    if not place.files():
        raise WeightsError(f"{said}: no weight files there ({', '.join(ENDINGS)})")
    return place


def _cached(repo: str, how: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, local_files_only=True, **how))
    except Exception:  # the hub client raises many types
        return None


def _fetched(repo: str, how: Mapping[str, Any], said: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, **how))
    except Exception as error:  # no network, no such repository, no such revision
        raise WeightsError(
            f"{said}: not in the hub's cache, and cannot be fetched ({gist(error)}); "
            "check the name, or give a folder with local-dir:PATH"
        ) from None


def beside(path: Path, companions: Iterable[str]) -> list[Path]:
    """The companions of a file that lie beside it."""
    return [found for name in companions if (found := path.with_name(name)).is_file()]
