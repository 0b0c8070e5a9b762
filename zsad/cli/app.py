"""``zsad app``: a page on this computer that scores the pictures one drops on it."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import say, stdout_to_stderr, tell
from zsad.errors import RequestError

PORT = 8000
EPILOG = """\
The page lets you drop or paste pictures, choose a method, calibrate with good pictures, look at
what was found, and take the method away as one file.  Programs ask POST /predict, GET /methods
and GET /health; /docs describes them, and /openapi.json does for programs.

Only this computer can reach it. With --host ADDRESS others can, too, who then need the token of
--token or, which no list of processes shows, of ZSAD_APP_TOKEN. Nothing is written outside of
one folder, which is removed in the end.
"""


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs, "app", run, "Score pictures on a page of your browser.", takes="overrides"
    )
    parser.epilog = EPILOG
    parser.add_argument("--method", metavar="NAME", help="that the page begins with")
    parser.add_argument(
        "--class-name", metavar="TEXT", help="what pictures show where a request does not say it"
    )
    parser.add_argument("--backbone", default="vit-l-14-336", metavar="NAME")
    parser.add_argument("--weights", metavar="FILE", help="weight file of the backbone")
    parser.add_argument("--checkpoint", metavar="FILE", help="trained state of the method")
    parser.add_argument("--preset", metavar="NAME", help="of the method; see `zsad show METHOD`")
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="fp32, bf16 or fp16")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on")
    parser.add_argument(
        "--port", type=options.count, default=PORT, metavar="N", help=f"(default: {PORT})"
    )
    parser.add_argument(
        "--token",
        action="secret",
        metavar="TEXT",
        help="that every request needs (default: $ZSAD_APP_TOKEN)",
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="new folder for uploads (default: a temporary one)"
    )
    options.device(parser)
    options.plugins(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from zsad.app import settings

    settings.require_packages()
    if args.plugins:
        registry.add_plugins(args.plugins)
    given = [k for k in ("checkpoint", "preset", "overrides") if getattr(args, k)]
    if given and not args.method:
        raise RequestError(f"--{given[0]}: needs --method NAME, whose it is")
    chosen = settings.AppSettings(
        args.method or _first(),
        args.backbone,
        args.checkpoint,
        args.preset,
        args.weights,
        args.overrides or None,
        {"device": args.device, "offline": args.offline, "precision": args.precision},
        args.host,
        settings.token() if args.token is None else args.token,
        class_name=args.class_name or "",
    )
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="zsad-app-"))
        folder = settings.folder_of(args.folder, Path(place))
        with stdout_to_stderr():
            from zsad.app.server import serve

        tell("zsad: note: stop it with Ctrl-C")
        serve(chosen, folder, args.port, say)
    return 0


def _first() -> str:
    """A method that scores pictures one by one and needs no trained state."""
    return next(name for name, e in registry.methods().items() if not (e.trained or e.transductive))
