"""Puts the report together: tables as HTML, everything else as data that a small script draws."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from zsad import __version__
from zsad.errors import RequestError
from zsad.io import atomic_write_text
from zsad.report.collect import collect
from zsad.store import ResultStore
from zsad.tables import pages
from zsad.tables.formats import html_table

ASSETS = files("zsad.report") / "assets"


def write(results: Path | str) -> Path:
    """Write ``<results>/report/index.html`` and return its path.

    One file without any outside reference: it can be mailed, and opens without a network.
    Raises :class:`RequestError` when the folder holds no records.
    """
    store = ResultStore(results)
    boards = collect(store)
    if not any(board["cells"] for board in boards):
        raise RequestError(
            f"{results}: no results there; run `zsad bench --results {results}` first"
        )
    return atomic_write_text(Path(results) / "report" / "index.html", render(store, boards))


def render(store: ResultStore, boards: list[dict[str, Any]]) -> str:
    """The whole page as text."""
    runs = list(reversed(store.manifest()["runs"]))
    failures = [
        {
            "cell": f"{f.method} on {f.dataset}/{f.category}, seed {f.seed}",
            "error": f.error,
        }
        for f in store.failures()
    ]
    parts = {
        "STYLE": _asset("style.css"),
        "SCRIPT": _asset("script.js"),
        "BANNERS": _banners(boards),
        "OVERVIEW": _overview(store),
        "FAILURES": _failures(failures),
        "RUNS": _runs(runs),
        "VERSION": html.escape(__version__),
        "DATA": embedded({"boards": boards}),
    }
    page = _asset("page.html")
    # Filled in one pass: what a part contains is never taken for a mark.
    out = []
    for piece in page.split("{{"):
        name, close, rest = piece.partition("}}")
        out.append(parts[name] + rest if close and name in parts else piece)
    return "".join(out)


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _banners(boards: list[dict[str, Any]]) -> str:
    lines = [
        f"<p class=banner><b>{html.escape(b['backbone'])}</b>: {html.escape(b['banner'])}</p>"
        for b in boards
        if b["banner"]
    ]
    return "\n".join(lines)


def _overview(store: ResultStore) -> str:
    """The overview tables of every backbone, with their footnotes."""
    out = []
    for page in pages(store.root):
        if not page.name.endswith("/overview"):
            continue
        out.append(f"<h3>{html.escape(page.title)}</h3>")
        out += [
            f"<h4>{html.escape(t.title)}</h4><div class=wide>{html_table(t)}</div>"
            for t in page.tables
        ]
        notes = "".join(f"<li>{html.escape(n)}</li>" for n in page.notes)
        out.append(f"<ul class=notes>{notes}</ul>")
    return "\n".join(out)


def _failures(failures: list[dict[str, str]]) -> str:
    if not failures:
        return ""
    items = "".join(
        f"<li><b>{html.escape(f['cell'])}</b>: {html.escape(f['error'])}</li>" for f in failures
    )
    return f"<section id=failures><h2>Cells without a result</h2><ul>{items}</ul></section>"


def _runs(runs: list[dict[str, Any]]) -> str:
    """Manifests, the newest open."""
    out = []
    for i, run in enumerate(runs):
        text = html.escape(json.dumps(run, indent=1, sort_keys=True))
        when = html.escape(str(run.get("finished", "")))
        mark = " open" if i == 0 and len(text) < 4000 else ""
        out.append(f"<details{mark}><summary>Run of {when}</summary><pre>{text}</pre></details>")
    return "\n".join(out) or "<p>No run has written a manifest.</p>"
