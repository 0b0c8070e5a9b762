"""Checkpoints that were given: the file that each target takes, checked before anything runs.

No torch.  What a file was trained on is told by its content (:mod:`zsad.checkpoints.released`) or
by its own account, never by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zsad.backbones.specs import spec
from zsad.checkpoints.account import Origin, account_of, origin_of
from zsad.checkpoints.sources import Place, Sources, beside
from zsad.data.catalog import load_spec
from zsad.errors import RequestError
from zsad.io.digests import remembered_sha256
from zsad.registry import list_datasets
from zsad.runner.columns import Column
from zsad.runner.request import Request


@dataclass(frozen=True)
class Given:
    """The file that a target takes, what is known of it, and what has to be said about that."""

    origin: Origin
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.origin.path


def check(request: Request) -> None:
    """Raise :class:`RequestError` for a checkpoint that is missing, of another method, or trained
    on what it would be evaluated on; nothing was run then."""
    name = request.trained_on
    if name in request.datasets and load_spec(name).training_split != "train":
        raise RequestError(
            f"--trained-on {name}: is a target, too, and nothing is evaluated on what it was "
            f"trained on; leave {name} out of --datasets"
        )
    for column in request.columns:
        if column.checkpoint is None:
            continue
        column.checkpoint.check(request.datasets, list_datasets())
        for target in request.datasets:
            given_for(request, column, target)


def given_for(request: Request, column: Column, target: str) -> Given:
    """The file of a column for a target dataset.  Raises as :func:`check` does."""
    assert column.checkpoint is not None
    place = column.checkpoint.of(target)
    wanted = auxiliary_name(request, target, column)
    option, companions = column.checkpoint.option, column.entry.companions
    found = chosen(place, option, column.entry.name, target, wanted, companions)
    _check_method(found, column)
    if _saw(found, target):
        raise RequestError(_of_target(found, column.checkpoint, target))
    notes = []
    row = found.released
    if row is not None:
        if not row.serves_target(target):
            notes.append(f"its authors evaluate it on {row.serves_words}, not on {target}")
        if not row.authors:
            notes.append("a third party's file, not the authors'")
        elif not row.evaluated:
            notes.append(f"its authors evaluate another epoch than {row.epoch}")
    if (revision := other_revision(found, column)) is not None:
        notes.append(
            f"trained by revision {revision} of the method, not by the present one "
            f"({column.entry.revision})"
        )
    return Given(found, tuple(notes))


def content_of(given: Given, column: Column) -> str:
    """The SHA-256 of a file, and of those beside it that are loaded with it, joined by "+"."""
    parts = [given.path, *beside(given.path, column.entry.companions)]
    return "+".join(remembered_sha256(part) for part in parts)


def other_revision(found: Origin, column: Column) -> int | None:
    """The revision of the method that trained a state, where it is not the present one."""
    meta = account_of(found.path)
    if meta is None or meta.source != "trained" or meta.revision == column.entry.revision:
        return None
    return meta.revision


def auxiliary_name(request: Request, target: str, column: Column | None = None) -> str:
    """The dataset that a trained column learns from when ``target`` is evaluated.

    What was asked for: ``--trained-on``, else that of the protocol's row, unless it is the target,
    else the protocol's.  Where no protocol was named, the
    demonstration backbone learns from ``synthetic``: it was made for machines without any
    download, so what it is trained further on must not need one either.
    """
    if request.trained_on:
        return request.trained_on
    if column is not None and column.trained_on not in ("", target):
        return column.trained_on
    if spec(request.settings.backbone.name).demo and not request.options.protocol:
        return "synthetic"
    return request.protocol.auxiliary.of(target)


def is_asked_for(request: Request, column: Column) -> bool:
    """Whether anybody named a training set for a column, or a protocol whose it is."""
    demo = spec(request.settings.backbone.name).demo
    return bool(request.trained_on or column.trained_on or request.options.protocol or not demo)


# --------------------------------------------------------------------------------- folders
def chosen(
    place: Place,
    option: str,
    method: str,
    target: str,
    wanted: str,
    companions: Sequence[str] = (),
) -> Origin:
    """The file of a place that serves a target.

    Of a folder, that is the one of the method that was not trained on the target: rather one
    that the authors evaluate than another, rather one that was trained on what is
    ``wanted``.  Raises :class:`RequestError` with the files where none is left, or
    several.
    """
    found = [origin_of(path) for path in place.states(companions)]
    if len(found) == 1:
        return found[0]
    mine = [o for o in found if o.method == method]
    serving = [o for o in mine if o.trained_on and not _saw(o, target)]
    serving = [o for o in serving if _meant(o, target)] or serving
    serving = [o for o in serving if o.trained_on == (wanted,)] or serving
    if len(serving) == 1:
        return serving[0]
    listed = ", ".join(o.words for o in serving or mine or found)
    what = (
        "several of its files serve"
        if serving
        else f"none of its files of {method} is known to serve"
    )
    raise RequestError(
        f"{option}={place.text}: {what} the target {target}: {listed}; "
        f"name one: {option}={{{target}: FILE}}"
    )


def _meant(found: Origin, target: str) -> bool:
    """Whether a file is nobody's released one, or one that its authors evaluate on the target."""
    row = found.released
    return row is None or (row.official and row.serves_target(target))


# --------------------------------------------------------------------------------- refusals
def _check_method(found: Origin, column: Column) -> None:
    if found.method and found.method != column.entry.name:
        raise RequestError(
            f"{column.entry.name}.checkpoint: {found.words} is of {found.method}, not of "
            f"{column.entry.name}; give its own file"
        )


def _saw(found: Origin, target: str) -> bool:
    """Whether a file was trained on the part of a dataset that is evaluated.  One that lists its
    pictures is compared picture by picture later."""
    if target not in found.trained_on or found.listed:
        return False
    return found.part != "train" and load_spec(target).training_split != "train"


def _of_target(found: Origin, sources: Sources, target: str) -> str:
    """Why a file that was trained on the target is refused, and what was probably meant."""
    others = {name: place for name, place in sources.of_target.items() if name != target}
    right = [name for name, place in others.items() if _serves(place, target)]
    if right and any(name in found.trained_on for name in sources.of_target):
        hint = f"the files of {target} and {right[0]} are swapped"
    elif found.released is not None:
        hint = f"it serves {found.released.serves_words}; give {{{target}: FILE, ...}}"
    else:
        hint = f"give the file for {target}: {{{target}: FILE, ...}}"
    return (
        f"{sources.option}: {found.words} would be evaluated on {target}, which it was trained on; "
        f"{hint}"
    )


def _serves(place: Place, target: str) -> bool:
    """Whether a file that was given for another target was not trained on this one."""
    origins: Sequence[Origin] = [origin_of(path) for path in place.files()]
    return any(o.trained_on and target not in o.trained_on for o in origins)
