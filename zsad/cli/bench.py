"""``zsad bench``: run methods on datasets."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zsad.cli import options
from zsad.cli.output import percent, print_json, print_table, say, stdout_to_stderr, tell
from zsad.data.account import Account, Entry
from zsad.errors import counted
from zsad.metrics.spec import drifting, headline
from zsad.results.aggregate import NOT_COMPUTED, PARTIAL
from zsad.runner.options import BenchOptions
from zsad.tables.model import signed

STAGES = ("train", "text", "decode", "encode", "boxes", "head", "map", "metrics")
SHORTEST = 0.05  # seconds: what would be printed as 0.0
MOST_FAILURES = 20  # printed; all of them are in the results folder


def add(verbs: Any) -> None:
    """Register the verb."""
    parser = options.verb(
        verbs,
        "bench",
        run,
        "Run methods on datasets.  Cells that the results folder holds are not computed again.",
        takes="overrides",
    )
    parser.epilog = "KEY=VALUE words change settings: clip.temperature=0.1 run.batch_size=4"
    options.of(parser, BenchOptions)
    options.as_json(parser)
    options.done(parser)


def run(args: argparse.Namespace) -> int:
    """Run the sweep; 3 if a cell failed."""
    from zsad.api import bench

    with stdout_to_stderr(), accounts_told():
        document = bench(**options.given(BenchOptions, args))
    if args.json:
        print_json(document)
    elif args.dry_run:
        print_plan(document)
    else:
        print_summary(document)
    return 3 if document["failed"] else 0


@contextlib.contextmanager
def accounts_told() -> Iterator[None]:
    """Print to standard error what the files of own datasets are taken for, as it is found out."""
    logger = logging.getLogger("zsad.accounts")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("zsad: %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.WARNING)  # others print these
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def print_summary(document: dict[str, Any]) -> None:
    """Print the means, what failed, and where everything lies."""
    shown = headline()
    rows = [
        [
            named(line),
            line["dataset"],
            *(figure(line, m.name) for m in shown),
            line["categories"],
        ]
        for line in document["summary"]
    ]
    heads = ["method", "dataset", *(m.full_title for m in shown), "categories"]
    if rows:
        print_table(heads, rows, right=range(2, len(heads)))
    # An import has none: what it measures was computed elsewhere.
    print_drift(document.get("drift", ()), document["results_dir"])
    if skipped := [text for cell in document["cells"] for text in cell.get("skipped", ())]:
        left = list(dict.fromkeys(skipped))
        say(f"{PARTIAL} scored without {len(left)} of the images: not to be compared.")
        for text in left[:MOST_FAILURES]:
            tell(f"zsad: left out: {text}")
    for text in [*undefined_lines(document), *dataset_lines(document["cells"])]:
        say(text)
    for banner in sorted({c.get("banner") or "" for c in document["cells"]} - {""}):
        say(f"Note: {banner}.")
    if document["counters"].get("images"):
        say(spent(document["seconds"], document["counters"]))
    count = len(document["cells"])
    if count:
        say(f"Results: {document['results_dir']}  (`zsad tables` makes tables of them)")
    kept = f"the other {count} are stored" if count > 1 else "the other one is stored"
    print_failures(document["failed"], kept if count else "nothing was stored")


def print_drift(drift: Sequence[Mapping[str, Any]], results: str) -> None:
    """Print how far figures in lower precision are from those of float32, and of what it is not
    known because nothing in float32 is stored."""
    shown = [m for m in drifting() if any(m.name in line["metrics"] for line in drift)]
    rows = [
        [
            f"{line['method']}{'*' * ('trained_apart' in line)}",
            line["dataset"],
            *(text for m in shown for text in _change(line["metrics"].get(m.name))),
            f"{line['cells']} of {line['of']}",
        ]
        for line in drift
        if line["metrics"]
    ]
    if rows:
        precision = drift[0]["precision"]
        say(
            f"Drift of {precision} from fp32, in points: mean over cells, and the cell farthest off"
        )
        columns = [text for m in shown for text in (m.full_title, "farthest")]
        heads = ["method", "dataset", *columns, "cells"]
        print_table(heads, rows, right=range(2, len(heads)))
    if apart := [line["method"] for line in drift if "trained_apart" in line]:
        own = " ".join(f"{name}.checkpoint=FILE" for name in dict.fromkeys(apart))
        say(f"* was trained apart in fp32, which shows, too; {own} compares one state.")
    if unknown := [line for line in drift if line["asked"] and not line["cells"]]:
        names = ", ".join(dict.fromkeys(line["method"] for line in unknown))
        say(
            f"Drift of {unknown[0]['precision']} from fp32: not known for {names}, since {results} "
            f"has no such cell in fp32; run the same command with backbone.precision=fp32, and "
            f"this one again."
        )


def _change(of: Mapping[str, Any] | None) -> tuple[str, str]:
    """A mean change and the largest one, in points, as the table of drift has them."""
    if of is None:
        return NOT_COMPUTED, NOT_COMPUTED
    return signed(100 * of["mean"], 2), f"{signed(100 * of['largest'])} ({of['cell']})"


def undefined_lines(document: Mapping[str, Any]) -> list[str]:
    """Why figures are "–" or lack categories, equal reasons of several methods once."""
    found: dict[str, dict[str, None]] = {}  # sentence -> metrics
    for line in document["summary"]:
        for metric in (m for m in headline() if m.name in line["undefined"]):
            for reason, categories in line["undefined"][metric.name].items():
                alone = categories == [line["dataset"]]
                where = line["dataset"] + ("" if alone else f" ({', '.join(categories)})")
                found.setdefault(f"{where}: {reason}", {})[metric.full_title] = None
    absent = [
        f"{name}: no pictures of {', '.join(names)}; left out of every mean"
        for name, names in document.get("missing", {}).items()
    ]
    return [f"– {', '.join(metrics)}: {said}" for said, metrics in found.items()] + absent


def dataset_lines(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not looked at of each dataset, and which image scores see it anyway; up to where its
    own AUPRO goes, and what else its figures are and are not."""
    ignored = {c["dataset"]: c["ignore"] for c in cells if c.get("ignore")}
    out = []
    for dataset, text in ignored.items():
        seeing = [c for c in cells if c["dataset"] == dataset and c.get("score_sees_ignored")]
        line = f"{dataset}: ignore {text}: left out of maps and pixel figures"
        if names := dict.fromkeys(named(c) for c in seeing):
            line += f"; the image scores of {', '.join(names)} still see it"
        out.append(f"{line}.")
    for cell in cells:
        if own := cell.get("dataset_fpr_limit"):
            used = cell["fpr_limit"]
            whose = "as its publisher's" if used == own else f"its publisher's to {own:g}"
            out.append(
                f"{cell['dataset']}: AUPRO up to a false positive rate of {used:g}, {whose}."
            )
        out += [f"{cell['dataset']}: {text}." for text in cell.get("figure_notes", ())]
    return list(dict.fromkeys(out))


def named(line: Mapping[str, Any]) -> str:
    """The name that a method is asked for by, with its configuration where not the default."""
    return f"{line['method']}{line['configuration']}"


def figure(line: Mapping[str, Any], metric: str) -> str:
    """A mean of the summary as the tables print it, with its count where categories are missing."""
    if metric not in line["metrics"]:
        return NOT_COMPUTED
    count, of = line["counts"][metric], line["categories"]
    missing = f" [{count} of {of}]" if count != of and of > 1 else ""
    return f"{percent(line['metrics'][metric])}{PARTIAL * ('partial' in line)}{missing}"


def spent(seconds: Mapping[str, float], counters: Mapping[str, Any]) -> str:
    """Where the time of this run went, how fast it was and how much memory it took."""
    stages = [
        f"{name} {seconds[name]:.1f} s" for name in STAGES if seconds.get(name, 0) >= SHORTEST
    ]
    heads = {k[5:]: v for k, v in seconds.items() if k.startswith("head:")}
    if len(heads) > 1:
        costly = max(heads, key=lambda name: heads[name])
        if heads[costly] >= SHORTEST:
            stages.append(f"costliest head {costly} {heads[costly]:.1f} s")
    facts = [counted(counters["images"], "image")]
    if "images_per_second" in counters:
        facts.append(speed(counters["images_per_second"]))
    memory = counters.get("peak_memory_mib", {})
    facts += [f"{mib} MiB {where} memory at most" for where, mib in memory.items()]
    return f"Time: {', '.join(stages)} ({', '.join(facts)})"


def speed(per_second: float) -> str:
    """``12.3 images/s``, or of a slow one how long an image takes: ``40 s per image``."""
    if per_second >= 1 or per_second <= 0:
        return f"{per_second:.3g} images/s" if per_second > 0 else "no image in a measurable time"
    return f"{1 / per_second:.3g} s per image"


def account_lines(document: Mapping[str, Any]) -> list[str]:
    """The lines of an account out of its JSON form."""
    entries = tuple(Entry(**e) for e in document["entries"])
    return Account(document["root"], entries).lines()


def print_failures(failed: list[dict[str, Any]], kept: str = "") -> None:
    """Print what failed with its causes to standard error, equal causes once, then the rows that
    are stored and say nothing.  ``kept``: what became of the rest, in words."""
    idle = [failure for failure in failed if failure.get("stored")]
    failed = [failure for failure in failed if not failure.get("stored")]
    for failure in idle:
        name = "/".join(str(v) for v in failure["cell"].values())
        tell(f"zsad: no effect: {name}: {failure['error']}")
    causes: dict[str, list[str]] = {}
    for failure in failed:
        name = "/".join(str(v) for v in failure["cell"].values())
        causes.setdefault(failure["error"], []).append(name)
    if failed:
        tell(f"zsad: {_counted(failed)} failed{kept and '; '}{kept}")
    for cause, names in list(causes.items())[:MOST_FAILURES]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        tell(f"zsad: failed: {names[0]}{more}: {cause}")


def _counted(failed: list[dict[str, Any]]) -> str:
    """How many cells, trainings, datasets or files failed."""
    kinds = Counter(
        "cell"
        if "category" in f["cell"]
        else "training"
        if "method" in f["cell"]
        else "dataset"
        if "dataset" in f["cell"]
        else "file"
        for f in failed
    )
    return " and ".join(counted(n, kind) for kind, n in kinds.items())


def print_plan(document: dict[str, Any]) -> None:
    """Print what a run would compute, by method and dataset."""
    cells = document["cells"]
    total = Counter((c["method"], c["dataset"]) for c in cells)
    stored = Counter((c["method"], c["dataset"]) for c in cells if c["stored"])
    rows = [
        [method, dataset, count, stored[method, dataset], count - stored[method, dataset]]
        for (method, dataset), count in total.items()
    ]
    if rows:
        print_table(["method", "dataset", "cells", "stored", "to run"], rows, right=(2, 3, 4))
    together: dict[tuple[str, str], list[str]] = {}
    for row in document.get("rows", ()):
        together.setdefault((row["method"], row["words"]), []).append(row["dataset"])
    say(*(f"{m} on {', '.join(names)}: {words}" for (m, words), names in together.items()))
    for name, account in document.get("accounts", {}).items():
        say(f"{name}: what every file was taken for")
        say(*(f"  {line}" for line in account_lines(account)))
    for name, absent in document.get("missing", {}).items():
        say(f"{name}: categories that are not there: {', '.join(absent)}")
    images = sum(document.get("images", {}).values())
    line = (
        f"{document['to_run']} of {counted(len(cells), 'cell')} to run, {counted(images, 'image')}"
    )
    say(f"{line}, backbone {document['backbone']}, results in {document['results_dir']}")
    if document.get("estimate") and document["to_run"]:
        say(document["estimate"]["text"])
    print_failures(document["failed"], "a dry run stores nothing")
