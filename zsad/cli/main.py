"""``zsad``: parses the command line, runs a verb, turns errors into exit codes.

Exit codes: 0 all done; 2 the request is wrong and nothing was run; 3 some cells failed and the
others are stored; 1 an error of zsad itself; 130 interrupted; 141 standard output was closed
before all was done.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from zsad import __version__
from zsad.cli import output
from zsad.cli.examples import filled
from zsad.errors import (
    RequestError,
    ZsadError,
    gist,
    is_out_of_memory,
    nearest,
    one_line,
    reason,
    unknown,
)
from zsad.io import refuse_address
from zsad.io.bounds import FOR_MODELS, FOR_TABLES, require_address_space
from zsad.runner.logs import OneLine
from zsad.runner.options import others_with

# verb -> module of this package; a module has `add(subparsers)`
VERBS = {
    "bench": "bench",
    "train": "train",
    "predict": "predict",
    "tables": "tables",
    "report": "report",
    "reproduce": "reproduce",
    "results": "results",
    "list": "show",
    "show": "show",
    "data": "data",
    "weights": "weights",
    "export": "export",
    "run": "run_package",
    "app": "app",
    "prompts": "prompts",
    "doctor": "doctor",
    "completion": "completion",
}

# What verbs need that load large libraries; a dry run loads none.
NEEDS = {
    **dict.fromkeys(
        ("bench", "train", "predict", "weights", "export", "reproduce", "app"), FOR_MODELS
    ),
    **dict.fromkeys(("tables", "report"), FOR_TABLES),
}

ENVIRONMENT = {  # what may be wrong with an unnamed file: with standard output
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EMFILE, errno.ENFILE),
}


WRITTEN = ("out", "results", "data_root", "save_bank", "write", "folder", "maps")  # places


class Once(argparse.Action):
    """What an option without an action of its own does: the last value holds, and another one
    before it is not dropped without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        held = vars(self).setdefault("held", values)
        if held != values and option_string:
            which = self.which(str(values), str(held))
            output.tell(f"zsad: note: {option_string} is given twice: {which}")
        self.held = values
        setattr(namespace, self.dest, values)

    def which(self, last: str, before: str) -> str:
        """Which of two values holds."""
        return f"{last} holds, not {before}"


class OnceSecret(Once):
    """The same of an option (``action="secret"``) whose values are never shown."""

    def which(self, last: str, before: str) -> str:
        return "the last value holds"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that accepts no abbreviations."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.register("action", None, Once)
        self.register("action", "secret", OnceSecret)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a word that is none of the choices, as every unknown name is refused."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            what = "/".join(action.option_strings) or "word"
            raise unknown(what, str(value), known, f"see `{self.prog} --help`")

    def format_help(self) -> str:
        """The help, with names of methods in its examples."""
        return filled(super().format_help())

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += " (to give a value that begins with '-', write --option=VALUE)"
        raise RequestError(f"{message}; see `{self.prog} --help`")


SHORT = """\
usage: zsad VERB ...

  zsad predict   score your own pictures       zsad bench    compare methods on datasets
  zsad tables    tables of what was stored     zsad report   a page of it
  zsad list      methods, datasets, backbones  zsad doctor   what works on this machine

`zsad --help` names all verbs, `zsad VERB --help` their options, with examples."""


class NoVerb(RequestError):
    """Nothing was asked for: a short help in place of one line."""

    def __init__(self) -> None:
        super().__init__("no VERB given; see `zsad --help`")


def build_parser() -> Parser:
    """Return the parser with all verbs."""
    parser = Parser(
        prog="zsad",
        description="Zero-shot image anomaly detection: benchmark, train and use the methods.",
        epilog="Exit codes: 0 done, 2 wrong request (nothing was run), 3 some cells failed.",
    )
    parser.add_argument("--version", action="version", version=f"zsad {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for module in dict.fromkeys(VERBS.values()):
        import_module(f"zsad.cli.{module}").add(verbs)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse ``argv``; KEY=VALUE words and, where a verb takes them, paths may stand anywhere.

    They end up in ``overrides`` and ``words``.  Raises :class:`RequestError`.
    """
    if not argv:
        raise NoVerb
    if not argv[0].startswith("-") and argv[0] not in VERBS:
        raise unknown("command", argv[0], VERBS, "see `zsad --help`")
    parser = build_parser()
    args, extras = parser.parse_known_args(argv)
    known = getattr(args, "options", ())
    for word in extras:
        if word.startswith("-") and word != "-":
            flag = word.partition("=")[0]
            name = flag.removeprefix("--").replace("-", "_")
            others = " and ".join(f"`zsad {v}`" for v in others_with(name, args.verb))
            hint = f" (it is one of {others})" if others else nearest(flag, known, 0.65)
            raise RequestError(f"unknown option '{flag}'{hint}; see `zsad {args.verb} --help`")
    _refuse_empty(args, extras)
    for name in WRITTEN:
        if isinstance(place := getattr(args, name, None), str):
            refuse_address(place, f"--{name.replace('_', '-')} {place}")
    takes = getattr(args, "takes", "")
    args.overrides = [w for w in extras if _is_override(w, takes)]
    args.words = [w for w in extras if not _is_override(w, takes)]
    _tell_repeated(args.overrides)
    if args.overrides and "overrides" not in takes:
        raise RequestError(f"`zsad {args.verb}` takes no KEY=VALUE such as '{args.overrides[0]}'")
    if args.words and "words" not in takes:
        hint = "write KEY=VALUE" if "overrides" in takes else "leave it out"
        raise RequestError(f"`zsad {args.verb}`: unexpected '{args.words[0]}'; {hint}")
    return args


def _tell_repeated(overrides: Sequence[str]) -> None:
    """Say which of several values of one key holds."""
    held: dict[str, str] = {}
    for word in overrides:
        key, _, value = word.partition("=")
        if held.setdefault(key, value) != value:
            output.tell(f"zsad: note: {key} is given twice: {value} holds, not {held[key]}")
        held[key] = value


def _refuse_empty(args: argparse.Namespace, extras: Sequence[str]) -> None:
    """Raise :class:`RequestError` for an empty value, such as a shell's unset variable leaves: as
    a path it would be the current folder."""
    for name, value in vars(args).items():
        if name in ("takes", "options", "verb"):  # ours
            continue
        if value == "" or (isinstance(value, list) and "" in value):
            raise RequestError(
                f"--{name.replace('_', '-')}: the value is empty; give one, or leave the option out"
            )
    if "" in extras:
        raise RequestError(f"`zsad {args.verb}`: an argument is empty; leave it out")


def _is_override(word: str, takes: str) -> bool:
    return "=" in word and not ("words" in takes and os.path.exists(word))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    output.open_streams()
    debug = bool(os.environ.get("ZSAD_DEBUG"))
    _log_to_stderr()
    if not debug:
        warnings.simplefilter("ignore")  # of libraries; zsad's own are log records
    code = 0
    try:
        args = parse(sys.argv[1:] if argv is None else list(argv))
        if args.verb in NEEDS and not getattr(args, "dry_run", False):
            require_address_space(NEEDS[args.verb])
        code = int(args.run(args))
    except SystemExit as done:  # --help and --version
        code = done.code if isinstance(done.code, int) else 0
    except ZsadError as error:
        code = error.exit_code
        if isinstance(error, NoVerb):
            for line in SHORT.split("\n"):
                output.tell(line)
        _complain(str(error), debug)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # of another pipe than standard output, which `output` looks after
        code = output.UNREAD
    except Exception as error:
        code, message = _unforeseen(error)
        _complain(message, debug)
    try:
        sys.stdout.flush()  # what --help had to say
    except (OSError, ValueError) as error:
        output.drop_output()
        return code if isinstance(error, BrokenPipeError) else code or RequestError.exit_code
    return code


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("zsad: %(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _unforeseen(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error that no part of zsad has made its own."""
    if is_out_of_memory(error):
        detail = f" ({gist(error)})" if str(error).strip() else ""
        more = "give the command more, or less to do at a time"
        return RequestError.exit_code, f"out of memory{detail}; {more}"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from "):
        # what Path.resolve raises before Python 3.13 in place of an OSError
        return RequestError.exit_code, f"{error}; give a path that leads somewhere"
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return RequestError.exit_code, "a path holds a zero byte, which no name of a file can have"
    return _of_the_world(error) if isinstance(error, OSError) else (1, _internal(error))


def _of_the_world(error: OSError) -> tuple[int, str]:
    """Exit code and message of a full disk, a name that is too long, a folder that may not be
    written: the world's fault, not ours, wherever a file is named."""
    if not error.filename and error.errno not in ENVIRONMENT:
        return 1, _internal(error)
    if not error.filename:
        output.drop_output()
    place = error.filename or output.STDOUT
    place = os.fsdecode(place) if isinstance(place, bytes) else place
    what = error.strerror or reason(error)
    return 2, f"{place}: {what}; fix this, then run the same command again"


def _internal(error: BaseException) -> str:
    return f"internal error, {reason(error)} (ZSAD_DEBUG=1 shows where)"


def _complain(message: str, debug: bool) -> None:
    if debug:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
    output.tell(f"zsad: error: {one_line(message)}")
