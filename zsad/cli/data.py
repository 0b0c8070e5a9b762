"""``zsad data check|prepare|boxes``: whether a dataset is there and sound, how to get it there, and
the boxes around what its masks mark."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad.cli import options
from zsad.cli.output import print_json, say, tell
from zsad.config import FolderSettings, Settings
from zsad.data.account import Account
from zsad.data.check import CheckReport, check
from zsad.data.prepare import PreparedDataset, prepare
from zsad.errors import CellError, DataError, RequestError, ZsadError
from zsad.registry import expand


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "data",
        run,
        "Check datasets (counts, every image and mask), extract a downloaded archive, or write the "
        "boxes of masks.",
        takes="overrides",
    )
    parser.epilog = (
        "`check` exits with 3 when a dataset is not as published or a file is broken, and with 2 "
        "when a picture of a folder has no role.  KEY=VALUE words are data.folder.class_name, "
        "data.folder.mask_threshold, data.folder.bits and data.folder.ignore."
    )
    parser.add_argument(
        "action", choices=["check", "prepare", "boxes"], metavar="check|prepare|boxes"
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET|FOLDER",
        help="a name, a YAML file or a folder; check takes several and groups",
    )
    options.data_root(parser)
    parser.add_argument("--variant", metavar="NAME", help="the preparation that is meant")
    parser.add_argument("--archive", metavar="FILE", help="prepare: the downloaded zip or tar file")
    parser.add_argument("--counts", action="store_true", help="check: only count, open no file")
    parser.add_argument(
        "--write", metavar="FILE", help="check: write the definition of a folder to FILE (.yaml)"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="boxes: the file to write, in COCO's format (default: DATASET-boxes.json)",
    )
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Check, prepare or write boxes; 3 if a dataset is not what it should be."""
    from zsad.data.catalog import select_datasets
    from zsad.runner.request import data_root

    if args.out is not None and args.action != "boxes":
        raise RequestError("--out belongs to `zsad data boxes`")
    if args.action == "check":
        if args.archive:
            raise RequestError("--archive belongs to `zsad data prepare`")
        settings = _folder_settings(args.overrides)
        words = [_word(w) for w in _words(args.dataset)]
        if args.write:
            words = [_write(words, settings, Path(args.write))]
        with _account_on_refusal(words, settings, args.json):
            names = select_datasets(words, settings)
        return _check(args, names, data_root(args.data_root))
    if args.write or args.overrides:
        raise RequestError("--write and KEY=VALUE words belong to `zsad data check`")
    if args.action == "boxes":
        names = select_datasets([_word(w) for w in _words(args.dataset)])
    else:
        names = select_datasets(args.dataset)
    if len(names) > 1:
        raise RequestError(f"`zsad data {args.action}` takes one dataset, not {len(names)}")
    if args.action == "boxes":
        return _boxes(args, names[0], data_root(args.data_root))
    if args.variant or args.counts:
        raise RequestError("--variant and --counts belong to `zsad data check`")
    return _prepare(args, names[0])


# ------------------------------------------------------------------------------ folders
def _words(text: str) -> list[str]:
    """The datasets that are asked for; a folder may have a comma in its name."""
    path = text.removeprefix("folder:")
    return [text] if os.path.isdir(path) and "," in path else expand(text)


def _word(text: str) -> str:
    """``folder:PATH`` for the path of a folder, unless a dataset has that name."""
    from zsad.data.catalog import GROUPS, list_specs

    known = text in GROUPS or text in list_specs()
    return f"folder:{text}" if not known and os.path.isdir(text) else text


def _folder_settings(overrides: list[str]) -> FolderSettings:
    """``data.folder.*``; nothing else is a setting of a check."""
    values = cfg.parse_dotlist(overrides)
    foreign = [k for k in cfg.flat(values) if not k.startswith("data.folder.")]
    if foreign:
        raise RequestError(f"`zsad data check` takes data.folder.KEY=VALUE only, not {foreign[0]}")
    found = cfg.resolve(Settings, [("the command line", values)])
    return found.value.data.folder


@contextlib.contextmanager
def _account_on_refusal(
    words: list[str], settings: FolderSettings, as_json: bool
) -> Iterator[None]:
    """Say what every file was taken for, where a folder is refused."""
    try:
        yield
    except RequestError as error:
        accounts = {w: _account(w, settings) for w in words if w.startswith("folder:")}
        refused = {w: a for w, a in accounts.items() if a is not None and a.without_role}
        if as_json:
            failed = [
                {"dataset": w, "error": str(error), "account": a.document()}
                for w, a in refused.items()
            ]
            print_json({"datasets": [], "failed": failed})
        else:
            for word, account in refused.items():
                say(f"{word}: what every file was taken for")
                say(*(f"  {line}" for line in account.lines()))
        raise


def _account(word: str, settings: FolderSettings) -> Account | None:
    from zsad.data.folder_dataset import account_of

    try:
        return account_of(Path(word.removeprefix("folder:")), settings)
    except ZsadError:
        return None


def _write(words: list[str], settings: FolderSettings, target: Path) -> str:
    """Write the definition of a folder and return what to check instead."""
    from zsad.data.folder_dataset import definition, inferred
    from zsad.io import atomic_write_text

    if len(words) != 1 or not words[0].startswith("folder:"):
        raise RequestError(f"--write {target}: give one folder, not '{','.join(words)}'")
    if target.suffix not in (".yaml", ".yml"):
        raise RequestError(f"--write {target}: give a name that ends in .yaml")
    if target.exists():
        raise RequestError(f"--write {target}: is there already; give another name")
    text = definition(inferred(Path(words[0].removeprefix("folder:")), settings), settings, target)
    atomic_write_text(target, text)
    tell(f"zsad: wrote {target}; edit it, and use it as --datasets {target}")
    return str(target)


# ------------------------------------------------------------------------------- check
def _check(args: argparse.Namespace, names: list[str], root: Path | None) -> int:
    reports: list[CheckReport] = []
    failures: dict[str, ZsadError] = {}
    for name in names:
        try:
            reports.append(check(name, root, args.variant, open_files=not args.counts))
        except DataError as error:
            if len(names) == 1:
                raise
            failures[name] = error
            if not args.json:
                say(f"{name}: NOT there: {error}")
            continue
        if not args.json:
            say(*reports[-1].lines())
    if args.json:
        print_json(
            {
                "datasets": [_report(r) for r in reports],
                "failed": [{"dataset": n, "error": str(e)} for n, e in failures.items()],
            }
        )
    return CellError.exit_code if failures or not all(r.ok for r in reports) else 0


def _report(report: CheckReport) -> dict[str, Any]:
    """A report as JSON."""
    return {
        "dataset": report.dataset,
        "ok": report.ok,
        "variant": report.variant,
        "title": report.title,
        "other_variants": [v._asdict() for v in report.others],
        "layout": report.layout,
        "root": None if report.root is None else str(report.root),
        "n_normal": report.total[0],
        "n_anomalous": report.total[1],
        "published": report.published,
        "categories": [c._asdict() for c in report.counts],
        "opened": report.opened,
        "masks": report.masks,
        "mask_threshold": report.mask_threshold,
        "ignore": report.ignore,
        "sizes": report.sizes,
        "modes": report.modes,
        "findings": [f._asdict() for f in report.findings],
        "account": report.account.document() if report.account else None,
    }


# ----------------------------------------------------------------------------- prepare
def _boxes(args: argparse.Namespace, name: str, root: Path | None) -> int:
    """Write the boxes around what masks mark; an existing file is left alone."""
    from zsad.data import coco
    from zsad.data.index import load_index
    from zsad.io import write_json
    from zsad.io.names import safe_name

    if args.archive or args.counts:
        raise RequestError("--archive and --counts do not belong to `zsad data boxes`")
    target = Path(f"{safe_name(name)}-boxes.json" if args.out is None else args.out)
    if target.suffix != ".json":
        raise RequestError(f"--out {target}: give a file that ends in .json")
    if target.exists():
        raise RequestError(f"--out {target}: is there already; give another name, or remove it")
    index = load_index(name, root, variant=args.variant)
    found = coco.table(index)
    try:
        write_json(target, found.document)
    except OSError as error:
        raise RequestError(f"--out {target}: cannot be written ({error.strerror})") from None
    if args.json:
        counts = {k: len(found.document[k]) for k in ("images", "annotations")}
        phrases = [c["name"] for c in found.document["categories"]]
        left_out = list(found.left_out)
        print_json({"file": str(target), **counts, "phrases": phrases, "left_out": left_out})
    else:
        say(*found.lines(), f"{target}: file names are relative to {index.root}")
    return 0


def _prepare(args: argparse.Namespace, name: str) -> int:
    # The folder for datasets need not exist before the first one is put there.
    root = args.data_root or os.environ.get("ZSAD_DATA")
    done = prepare(name, root, args.archive)
    if args.json:
        print_json(_prepared(done))
    else:
        say(*done.lines())
    return CellError.exit_code if done.index.problems else 0


def _prepared(done: PreparedDataset) -> dict[str, Any]:
    """What was prepared as JSON."""
    normal, anomalous = done.index.counts()
    fields = {f.name: getattr(done, f.name) for f in dataclasses.fields(done) if f.name != "index"}
    return {
        **fields,
        "target": None if done.target is None else str(done.target),
        "root": None if done.index.root is None else str(done.index.root),
        "variant": done.index.variant,
        "n_normal": normal,
        "n_anomalous": anomalous,
        "problems": done.index.problems,
        "notes": done.index.notes,
    }
