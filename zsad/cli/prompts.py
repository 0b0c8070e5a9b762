"""``zsad prompts check|generate``: review the prompt bank, or extend it by a language model."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad import registry
from zsad.cli import options
from zsad.cli.output import print_json, print_table, say, stdout_to_stderr, tell
from zsad.errors import RequestError, counted
from zsad.prompt_bank.kinds import find_kind, image_query_of, kinds

if TYPE_CHECKING:
    from zsad.prompt_bank.endpoint import EndpointOptions

MANY = 100  # requests that are not sent without a word


class _KindHelp(str):
    """The help of ``--kind``.  It names the kinds, and asks the methods for them only when it is
    shown: every command makes all parsers."""

    def __mod__(self, value: Any, /) -> str:
        return f"one of {', '.join(kinds())}; without it, `check` looks at all of them"


# The options that `check` has no use for, with their defaults.
GENERATES: dict[str, Any] = {
    "images": False,
    "normal_images": False,
    "per_image": 1,
    "limit": 0,
    "max_requests": 0,
    "concurrency": 4,
    "rate": 0.0,
    "base_url": None,
    "model": None,
    "timeout": 60.0,
    "data_root": None,
}


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(verbs, "prompts", run, "Check the prompt bank, or generate prompts.")
    parser.add_argument("action", choices=["check", "generate"], metavar="check|generate")
    parser.add_argument("--kind", metavar="KIND", help=_KindHelp("kinds"))
    parser.add_argument(
        "--datasets",
        metavar="NAMES",
        help="without it, `check` looks at all 22 datasets and synthetic",
    )
    parser.add_argument(
        "--images", action="store_true", help="ask about training images, if the kind does"
    )
    parser.add_argument(
        "--normal-images", action="store_true", help="with --images: about normal ones, too"
    )
    parser.add_argument(
        "--per-image", type=options.count, default=1, metavar="M", help="answers per image"
    )
    parser.add_argument(
        "--class-name",
        action="append",
        default=[],
        metavar="TEXT",
        help="generate: a product of your own ('gearbox cover'), in place of --datasets",
    )
    parser.add_argument(
        "--yes", action="store_true", help=f"send more than {MANY} requests without a budget"
    )
    parser.add_argument(
        "--max-tokens", type=options.count, default=1024, metavar="N", help="length of an answer"
    )
    parser.add_argument(
        "--token-parameter",
        choices=["max_tokens", "max_completion_tokens", "none"],
        default="max_tokens",
        metavar="NAME",
        help="how the length is sent: max_tokens, max_completion_tokens or none; a refusal of the "
        "model changes it",
    )
    parser.add_argument(
        "--api",
        choices=["chat", "completions"],
        default="chat",
        metavar="NAME",
        help="chat or completions (a refusal changes it)",
    )
    parser.add_argument(
        "--no-temperature", action="store_true", help="leave the sampling to the model"
    )
    parser.add_argument("--reasoning-effort", metavar="NAME", help="of a reasoning model: low, ...")
    parser.add_argument(
        "--limit", type=options.count, default=0, metavar="N", help="images per category"
    )
    parser.add_argument(
        "--max-requests", type=options.count, default=0, metavar="N", help="budget, 0: none"
    )
    parser.add_argument(
        "--concurrency", type=options.count, default=4, metavar="N", help="requests at a time"
    )
    parser.add_argument(
        "--rate", type=options.number, default=0.0, metavar="N", help="requests per minute"
    )
    parser.add_argument("--base-url", metavar="URL", help="default: $OPENAI_BASE_URL")
    parser.add_argument("--model", metavar="NAME", help="default: $ZSAD_LLM_MODEL")
    parser.add_argument("--timeout", type=options.number, default=60.0, metavar="SECONDS")
    parser.add_argument("--out", metavar="DIR", help="folder of the texts (default: $ZSAD_PROMPTS)")
    options.plugins(parser)
    options.data_root(parser)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Check or generate; 3 where something is wrong or missing."""
    if args.plugins:
        registry.add_plugins(args.plugins)
    if args.kind is not None and args.kind not in kinds():
        raise RequestError(f"--kind {args.kind}: known are {', '.join(kinds())}")
    if args.action == "check":
        for name, default in GENERATES.items():
            if getattr(args, name) != default:
                flag = f"--{name.replace('_', '-')}"
                raise RequestError(f"{flag} belongs to `zsad prompts generate`")
    return check(args) if args.action == "check" else generate(args)


def check(args: argparse.Namespace) -> int:
    """Print counts per kind and dataset, then the problems."""
    from zsad.data.catalog import select_datasets
    from zsad.prompt_bank.bank import bank
    from zsad.prompt_bank.checks import clip_tokens, review

    datasets = select_datasets(args.datasets or "extended")
    if args.datasets is None:
        datasets = [*datasets, "synthetic"]
    wanted = [args.kind] if args.kind else list(kinds())
    with stdout_to_stderr():
        found = review(bank(args.out), wanted, datasets, clip_tokens())
    problems = [f"{r.kind}/{r.dataset}: {p}" for r in found for p in r.problems]
    if args.json:
        print_json({"reviews": [vars(r) for r in found], "problems": problems})
        return 3 if problems else 0
    rows = [
        [r.kind, r.dataset, r.categories]
        + [", ".join(f"{k} {sum(v)} ({min(v)}..{max(v)})" for k, v in r.counts.items())]
        + [f"{r.named} of {r.folders}" if r.folders else "-", r.longest, r.source, len(r.problems)]
        for r in found
    ]
    columns = ["kind", "dataset", "categories", "texts (per category)", "folders named"]
    print_table([*columns, "longest", "source", "problems"], rows, right=(2, 4, 5, 7))
    texts = sum(sum(v) for r in found for v in r.counts.values())
    say(
        f"{counted(texts, 'text')}, {counted(len(problems), 'problem')}; 'longest' is in tokens "
        "of CLIP's 77"
    )
    say("'folders named': of the dataset's defect folders, how many kinds the texts name")
    say(*problems)
    return 3 if problems else 0


def generate(args: argparse.Namespace) -> int:
    """Ask the endpoint, keep the answers, write the bank's files."""
    _check(args)
    from zsad.data.catalog import load_spec, select_datasets
    from zsad.prompt_bank.answers import answers_root
    from zsad.prompt_bank.generation import ImageOptions, generate_words, product, questions_left
    from zsad.prompt_bank.generation import generate as run_generation

    settings = _endpoint(args)
    out = Path(args.out) if args.out else answers_root()
    wanted = [args.kind] if args.kind else list(kinds())
    datasets = select_datasets(args.datasets) if args.datasets else []
    categories = [load_spec(d).category(key) for d in datasets for key in load_spec(d).categories]
    categories += [product(name) for name in args.class_name]
    images = None
    if args.images:
        images = ImageOptions(args.limit, args.normal_images, args.per_image)
    else:
        _announce(questions_left(wanted, categories, out, settings), settings, args.yes)
    with stdout_to_stderr():
        if args.class_name:
            report = generate_words(wanted, args.class_name, out, settings)
        else:
            report = run_generation(
                args.kind, datasets, out, settings, images=images, data_root=args.data_root
            )
    if args.json:
        print_json(report)
    else:
        _say(report, out)
    return 3 if report["failed"] else 0


def _check(args: argparse.Namespace) -> None:
    """Raise :class:`RequestError` for options that do not go together."""
    if bool(args.datasets) == bool(args.class_name) or (args.datasets and not args.kind):
        raise RequestError(
            "`zsad prompts generate` needs --kind and --datasets, or --class-name TEXT"
        )
    if args.images:
        if args.class_name:
            raise RequestError("--images: needs --datasets with training images, not --class-name")
        image_query_of(find_kind(args.kind))
    elif args.normal_images or args.per_image != 1:
        flag = "--normal-images" if args.normal_images else "--per-image"
        raise RequestError(f"{flag}: says what --images asks about; add --images")
    if args.per_image < 1:
        raise RequestError("--per-image: take 1 or more")


def _endpoint(args: argparse.Namespace) -> EndpointOptions:
    """Where questions are sent, and how."""
    from zsad.prompt_bank.endpoint import EndpointOptions

    return EndpointOptions.from_environment(
        base_url=args.base_url,
        model=args.model,
        timeout=args.timeout,
        max_requests=args.max_requests,
        concurrency=args.concurrency,
        per_minute=args.rate,
        max_tokens=args.max_tokens,
        limit=args.token_parameter,
        api=args.api,
        temperature=not args.no_temperature,
        effort=args.reasoning_effort or "",
    )


def _say(report: Mapping[str, Any], out: Path) -> None:
    """Say what was asked, written and left undone."""
    say(
        f"{counted(report['requests'], 'request')}, {counted(report['cached'], 'answer')} "
        "from the cache"
    )
    for path in report["files"]:
        say(f"wrote {path}")
    for line in report["notes"]:
        say(f"note: {line}")
    for line in report["failed"]:
        say(f"failed: {line}")
    if report["files"]:
        say(f"use them: export ZSAD_PROMPTS={shlex.quote(str(out))}")


def _announce(count: int, settings: EndpointOptions, yes: bool) -> None:
    """Say how many requests come, before the first.  Raises :class:`RequestError` for many that
    nobody has agreed to."""
    tell(
        f"zsad: note: {counted(count, 'request')} to {settings.base_url} for model "
        f"'{settings.model}', and again for answers that cannot be used"
    )
    if count > MANY and not yes and not settings.max_requests:
        raise RequestError(
            f"{counted(count, 'request')}, more than {MANY}: add --yes, or a budget, "
            "--max-requests N; or choose one --kind"
        )
