"""The log of a results folder: what zsad's loggers say during a run, warnings and information."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from zsad.errors import shown
from zsad.io.environment import concealed
from zsad.runner.plan import Plan

FILE = "run.log"
MOST_FOLDERS = 30  # of an account, at the head of a run
ACCOUNTS = logging.getLogger("zsad.accounts")  # the command line prints what it says
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def logged(results: Path | str) -> Iterator[None]:
    """Append every record of level INFO or above to ``<results>/run.log`` while it lasts.

    What reaches the terminal stays as it was.  A log that cannot be written (a full disk) is
    given up; the run goes on.
    """
    logger = logging.getLogger("zsad")
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(folder / FILE, encoding="utf-8", delay=True, errors="backslashreplace")
    handler.setLevel(logging.INFO)
    handler.setFormatter(OneLine(FORMAT))
    before, elsewhere = logger.level, logger.getEffectiveLevel()
    quiet = _AsBefore(elsewhere)
    others = _handlers(logger)
    for other in others:
        other.addFilter(quiet)
    logger.addHandler(handler)
    logger.setLevel(min(elsewhere, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        for other in others:
            other.removeFilter(quiet)
        handler.close()


def _handlers(logger: logging.Logger | None) -> list[logging.Handler]:
    """Handlers that a record of this logger reaches."""
    found: list[logging.Handler] = []
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


class OneLine(logging.Formatter):
    """One line per record, whatever the names in it hold; a traceback has lines of its own.  What
    came from the environment is told as a reference."""

    def format(self, record: logging.LogRecord) -> str:
        text = concealed(super().format(record))
        lines = text.split("\n") if record.exc_info or record.stack_info else [text]
        return "\n".join(map(shown, lines))


class _LogFile(logging.FileHandler):
    """A log file that is given up quietly when it cannot be written, or is a link: whoever shares
    the results folder may not have us write elsewhere."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(
            self.baseFilename,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0),
            0o666,
        )
        return os.fdopen(descriptor, "a", encoding="utf-8", errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.setLevel(logging.CRITICAL + 1)

    def handleError(self, record: logging.LogRecord) -> None:
        self.setLevel(logging.CRITICAL + 1)


class _AsBefore(logging.Filter):
    """Lets pass what a handler got before the level was lowered for the file."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.level or not record.name.startswith("zsad")


def tell_accounts(plan: Plan) -> None:
    """Say, before anything is computed, what the files of users' own datasets were taken for, and
    which categories hold no picture."""
    for name, account in plan.accounts().items():
        ACCOUNTS.info("%s: what every file was taken for", name)
        for line in account.lines(MOST_FOLDERS):
            ACCOUNTS.info("  %s", line)
    for dataset in plan.datasets:
        for note in dataset.index.notes:
            ACCOUNTS.warning("%s: %s", dataset.name, note)
