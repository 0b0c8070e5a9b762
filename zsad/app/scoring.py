"""A request to predictions: what ``zsad predict`` does with files, done with what was uploaded."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.app.settings import Choice
from zsad.app.uploads import Run, Upload
from zsad.app.worker import Worker
from zsad.deployment.write import export
from zsad.errors import RequestError, ZsadError, one_line
from zsad.inference.options import PredictOptions
from zsad.inference.prediction import Prediction
from zsad.inference.run import predict

ROLES = ("calibrate", "references")


@dataclass(frozen=True)
class Ask:
    """What a client asks for.  ``good``: normal pictures, which ``role`` says the use of;
    ``like``: an earlier run whose thresholds and references hold; ``page``: whether files for the
    page are written."""

    choice: Choice
    class_name: str
    pictures: Sequence[Upload]
    good: Sequence[Upload] = ()
    role: str = ROLES[0]
    like: Run | None = None
    image_threshold: float | None = None
    threshold: float | None = None
    page: bool = False


class Warnings(logging.Handler):
    """Collects what is said of a request on standard error, each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (line := one_line(record.getMessage())) not in self.lines:
            self.lines.append(line)


@contextlib.contextmanager
def warnings_of() -> Iterator[Warnings]:
    """What zsad warns of meanwhile, whatever the thread; one request is worked on at a time."""
    heard, log = Warnings(), logging.getLogger("zsad")
    log.addHandler(heard)
    try:
        yield heard
    finally:
        log.removeHandler(heard)


def score(worker: Worker, ask: Ask, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Score the pictures on the worker's thread: for each what ``zsad predict`` prints, with
    ``sha256`` of its file, in order; and what it warns of.

    Raises :class:`ZsadError` for a request that makes no sense, with names as the client knows
    them.
    """
    references = run.adopt(ask.like.references) if ask.like else []
    references += ask.good if ask.role == "references" else ()
    normal = [str(up.path) for up in ask.good] if ask.role == "calibrate" else []
    if not normal and ask.like is not None and ask.like.calibration:
        normal = [str(ask.like.calibration)]
    uploads = {str(up.path): up for up in [*ask.pictures, *ask.good, *references]}
    run.choice, run.class_name, run.references = ask.choice, ask.class_name, references
    try:
        with warnings_of() as heard:
            said = list(_scored(worker, ask, run, normal, references, uploads))
    except ZsadError as error:
        raise type(error)(named(str(error), uploads.values())) from None
    if ask.page and ask.like is not None and ask.like.calibration and not run.calibration:
        shutil.copyfile(ask.like.calibration, run.found / ask.like.calibration.name)
    return said, [named(line, uploads.values()) for line in heard.lines]


def _scored(
    worker: Worker,
    ask: Ask,
    run: Run,
    normal: list[str],
    references: Sequence[Upload],
    uploads: Mapping[str, Upload],
) -> Iterator[dict[str, Any]]:
    """Score the pictures of a request.  ``normal``: what sets thresholds; ``uploads``: by path."""
    found = predict(
        PredictOptions(
            method=ask.choice.method,
            pictures=[str(up.path) for up in ask.pictures],
            class_name=ask.class_name,
            calibrate=normal or None,
            out=run.found if ask.page else None,
            threshold=ask.threshold,
            image_threshold=ask.image_threshold,
            save="page,csv" if ask.page else None,
            references=[str(up.path) for up in references],
            overrides=worker.settings.own_overrides(ask.choice),
        ),
        lambda values: worker.loaded(ask.choice, values),
        called={path: up.name for path, up in uploads.items()},
    )
    for one, up in zip(found, ask.pictures):
        yield _said(one, up)


def _said(found: Prediction, upload: Upload) -> dict[str, Any]:
    said = {**found.to_dict(), "sha256": upload.sha256}
    said.pop("files", None)
    return said


def named(text: str, uploads: Iterable[Upload]) -> str:
    """A message with the names that the client gave in place of paths."""
    for upload in uploads:
        text = text.replace(str(upload.path), upload.name)
    return text


def package(worker: Worker, run: Run, out: Path, kind: str) -> Path:
    """Write the method of a run, for its class name and with its thresholds and references, as
    one file.  On the worker's thread, whose method is given up: two take twice the memory."""
    if run.choice is None:
        raise RequestError("the run has not been scored")
    choice = run.choice
    worker.release()
    export(
        choice.method,
        run.class_name,
        kind,
        out,
        calibrate=run.calibration,
        reference=[str(up.path) for up in run.references],
        overrides=worker.settings.own_overrides(choice),
        load=lambda values: worker.fresh(choice, values),
    )
    return out
