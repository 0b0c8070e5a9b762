"""Puts the report together: tables as HTML, everything else as data that small scripts draw."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from zsad import __version__
from zsad.errors import RequestError
from zsad.io import atomic_write_text
from zsad.metrics.spec import glossary
from zsad.page import asset, embedded, filled, html_text
from zsad.report import pictures
from zsad.report.glossary import more_about
from zsad.report.page_data import collect
from zsad.results.store import ResultStore
from zsad.tables import pages
from zsad.tables.comparison import published_only
from zsad.tables.formats import html_table
from zsad.tables.results_matrix import boards

ASSETS = files("zsad.report") / "assets"
SHARED = ("elements", "csv", "shortest")  # of zsad.page
# Joined in this order, after those that pages share.
SCRIPTS = ("dom", "tables", "charts", "cost", "compare", "side", "pictures", "main")


def write(results: Path | str, most_pictures: int = pictures.MOST) -> Path:
    """Write ``<results>/report/index.html`` and return its path.

    One file without any outside reference: it can be mailed, and opens without a network.
    ``most_pictures``: example pictures in all.  Raises :class:`RequestError` when the folder
    holds no records.
    """
    store = ResultStore(results)
    data = collect(store, most_pictures)
    if not any(board["cells"] for board in data["boards"]):
        raise RequestError(
            f"{results}: no results there; run `zsad bench --results {results}` first"
        )
    return atomic_write_text(Path(results) / "report" / "index.html", render(store, data))


def render(store: ResultStore, data: dict[str, Any]) -> str:
    """The whole page as text."""
    runs = list(reversed(store.manifest()["runs"]))
    failures = [
        (f"{f.method} on {f.dataset}/{f.category}, seed {f.seed}", f.error)
        for f in store.failures()
    ]
    shared = [asset(f"{name}.js") for name in SHARED]
    scripts = "\n".join([*shared, *(_asset(f"{name}.js") for name in SCRIPTS)])
    parts = {
        "STYLE": _asset("style.css"),
        "SCRIPT": f'"use strict";\n(() => {{\n{scripts}\n}})();',
        "LEAD": _lead(data["boards"], runs),
        "BANNERS": _banners(data["boards"]),
        "METRICS": _metrics(data["metrics"]),
        "OVERVIEW": _overview(store),
        "PUBLISHED": _published(store, data["boards"]),
        "FAILURES": _failures(failures),
        "RUNS": _runs(runs),
        "VERSION": html_text(__version__),
        "DATA": embedded(data),
    }
    return filled(_asset("page.html"), parts)


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------ at the top
def _lead(boards: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> str:
    """One sentence: how much was measured, with what, and when."""
    methods = {m["label"] for b in boards for m in b["methods"]}
    cells = [c for b in boards for c in b["cells"]]
    images = {(c["dataset"], c["category"]): c["normal"] + c["anomalous"] for c in cells}
    counts = (
        (len(methods), "method"),
        (len({dataset for dataset, _ in images}), "dataset"),
        (len(images), "category"),
        (sum(images.values()), "image"),
    )
    named = [f"{n:,} {_plural(word, n)}" for n, word in counts]
    backbones = ", ".join(b["backbone"] for b in boards)
    noun = _plural("backbone", len(boards))
    when = str(runs[0].get("finished", ""))[:10] if runs else ""
    text = f"{', '.join(named[:3])} and {named[3]}, with the {noun} {backbones}"
    return html_text(f"{text}{f'; newest run {when}' if when else ''}.")


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _banners(boards: Sequence[dict[str, Any]]) -> str:
    lines = []
    for board in boards:
        if banner := board["banner"]:
            lines.append(
                f"<p class=banner><b>{html_text(board['backbone'])}: "
                f"{html_text(banner)}.</b> {html_text(more_about(banner))}</p>"
            )
    return "\n".join(lines)


def _metrics(shown: Collection[str]) -> str:
    """The glossary of the metrics that the page shows, as a table."""
    rows = "".join(
        f"<tr><th scope=row>{html_text(m.full_title)}</th><td>{html_text(m.question)}</td>"
        f"<td>{html_text(m.chance)}</td></tr>"
        for m in glossary(shown)
    )
    head = "<tr><th>figure</th><th>what it answers</th><th>guessing gets</th></tr>"
    return f"<table class=words><thead>{head}</thead><tbody>{rows}</tbody></table>"


# --------------------------------------------------------------------------------- tables
def _overview(store: ResultStore) -> str:
    """The overview and ablation tables of every backbone, with their footnotes."""
    out = []
    for page in pages(store.root):
        if not re.search("/(overview|ablation-[^/]*)$", page.name):
            continue
        out.append(f"<h4>{html_text(page.title)}</h4>")
        out += [
            f"<h5>{html_text(t.title)}</h5><div class=wide>{html_table(t)}</div>"
            for t in page.tables
        ]
        notes = "".join(f"<li>{html_text(n)}</li>" for n in page.notes)
        out.append(f"<ul class=notes>{notes}</ul>")
    return "\n".join(out)


def _published(store: ResultStore, found: Sequence[dict[str, Any]]) -> str:
    """What the section holds besides the drawn table."""
    if not any(board["published"] for board in found):
        text = (
            "The papers print no figures for what was measured here. A run on one of their "
            "datasets, such as mvtec or visa, would be compared in this place."
        )
        return f"<p class=nothing>{text}</p>"
    rows = list({row.name: row for board in boards(store.cells()) for row in board.rows}.values())
    only = published_only(rows)
    elsewhere = ""
    if only is not None:
        elsewhere = (
            f"<details><summary>{html_text(only.title)}</summary>"
            f"<div class=wide>{html_table(only)}</div></details>"
        )
    legend = (
        "Δ: measured minus published, in points. In part: the conditions differ in points that are "
        "named and that can move a figure a little."
    )
    return f"<div id=against></div><p class=notes>{legend}</p>{elsewhere}"


# ------------------------------------------------------------------------------ at the end
def _failures(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    items = "".join(
        f"<li><b>{html_text(cell)}</b>: {html_text(error)}</li>" for cell, error in failures
    )
    title = "Cells without a result"
    lead = "These are in no figure above. Run the same command again to try them once more."
    return f"<section id=failures><h2>{title}</h2><p>{lead}</p><ul>{items}</ul></section>"


def _runs(runs: Sequence[dict[str, Any]]) -> str:
    """Runs as a table, each with its whole manifest."""
    if not runs:
        return "<p>No run has written a manifest.</p>"
    lines = []
    for run in runs:
        request, counters = _part(run, "request"), _part(run, "counters")
        device, seconds = _part(run, "device"), _part(run, "seconds")
        spent = sum(v for k, v in seconds.items() if ":" not in k and isinstance(v, (int, float)))
        cells = (
            str(run.get("finished", "")).replace("T", " ")[:16],
            ", ".join(map(str, request.get("methods", []))),
            ", ".join(map(str, request.get("datasets", []))),
            _part(run, "backbone").get("name", ""),
            f"{counters.get('images', 0)}",
            f"{spent:.0f} s",
            device.get("name", ""),
            _part(run, "versions").get("zsad", ""),
        )
        lines.append("<tr>" + "".join(f"<td>{html_text(str(c))}</td>" for c in cells) + "</tr>")
    names = ("finished", "methods", "datasets", "backbone", "images encoded", "computing")
    head = "".join(f"<th>{n}</th>" for n in (*names, "device", "zsad"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    whole = "".join(
        f"<details><summary>Everything about the run of {html_text(str(r.get('finished', '')))}"
        f"</summary><pre>{html.escape(json.dumps(r, indent=1, sort_keys=True))}</pre></details>"
        for r in runs
    )
    return f"<div class=wide>{table}</div>{whole}"


def _part(run: dict[str, Any], name: str) -> dict[str, Any]:
    found = run.get(name)
    return found if isinstance(found, dict) else {}
