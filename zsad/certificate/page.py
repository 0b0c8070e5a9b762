"""The certificate as tables, as one HTML page, as LaTeX and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsad.certificate.figures import Line, Worth
from zsad.io import atomic_write_text
from zsad.metrics import spec
from zsad.page import asset, filled, html_text
from zsad.results.published import MEAN
from zsad.tables.formats import html_table, latex, markdown
from zsad.tables.model import Line as TableLine
from zsad.tables.model import Page, Span, Table, signed

if TYPE_CHECKING:
    from zsad.certificate.running import Certificate

HEADS = ("authors' log", "paper", "measured", "difference")
NAMES = {"html": "index.html", "tex": "certificate.tex", "json": "certificate.json"}
LEGEND = (
    "Figures in percent. Difference: measured, as printed, minus the authors' log, or minus the "
    "paper where there is no log, in points; – not published, undefined, or over other categories "
    "than the printed mean."
)
CAUTION = "This is not the authors' evaluation, and says nothing about it"


def write(made: Certificate, folder: Path) -> Certificate:
    """Write the page, the LaTeX tables and the figures below ``folder``; say where they lie."""
    *front, last = tables(made)
    # Notes stand under the last table, not under each of them.
    pages = [Page("certificate", made.title, tuple(front))]
    pages.append(Page("certificate", made.title, (last,), notes(made)))
    texts = {
        "html": html(made),
        "tex": "\n".join(map(latex, pages)),
        "json": json.dumps(document(made), indent=1, ensure_ascii=False),
    }
    written = {kind: atomic_write_text(folder / NAMES[kind], text) for kind, text in texts.items()}
    return replace(made, written=written)


def shown(made: Certificate) -> str:
    """The certificate as Markdown, for the console."""
    return markdown(Page("certificate", made.title, tuple(tables(made)), notes(made)))


def notes(made: Certificate) -> tuple[str, ...]:
    """The verdict and all that has to be known."""
    failed = [f"Failed: {_where(f['cell'])}: {f['error']}" for f in made.failed]
    return (f"Verdict: {_verdict(made)}.", *made.unlike, *made.notes, *failed, LEGEND)


def _verdict(made: Certificate) -> str:
    """The verdict with what takes its force."""
    return f"{made.verdict.words}. {CAUTION}" if made.unlike else made.verdict.words


def _where(cell: dict[str, Any]) -> str:
    return "/".join(str(value) for value in cell.values())


# --------------------------------------------------------------------------------- tables
def tables(made: Certificate) -> list[Table]:
    """One table per target and metric, one of the slips, one of the files, one of conditions."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in made.lines:
        groups.setdefault((line.target, line.metric), []).append(line)
    found = [_table(target, metric, of) for (target, metric), of in groups.items()]
    found += [_worth_table(made)] if made.worth else []
    return [*found, _files_table(made), _facts_table(made)]


def _table(target: str, metric: str, of: Sequence[Line]) -> Table:
    lines = [
        TableLine(
            _named(line),
            tuple((Span(_text(v)),) for v in (line.log, line.paper, line.measured))
            + ((Span(signed(line.difference)),),),
            mean=line.category == MEAN,
        )
        for line in of
    ]
    title = f"{target}: {spec.METRICS[metric].full_title}"
    name = f"{target}-{metric}"
    return Table(name, title, "category", HEADS, tuple(lines), (), tuple(map(_record, of)))


def _named(line: Line) -> str:
    if line.category != MEAN:
        return line.category
    return "mean" if line.whole else "mean (of a part)"


def _worth_table(made: Certificate) -> Table:
    """What each slip is worth: as released minus without it, in points."""
    metrics = list(dict.fromkeys(m for w in made.worth for m in w.means))
    says = {slip.name: slip.says for slip in made.slips}
    by_slip: dict[str, list[Worth]] = {}
    for one in made.worth:
        by_slip.setdefault(one.slip, []).append(one)
    targets = list(dict.fromkeys(w.target for w in made.worth))
    lines = []
    for slip, of in by_slip.items():
        cells = {w.target: w for w in of}
        row = [
            (Span(_gain(cells[t].means.get(m)) if t in cells else "–"),)
            for t in targets
            for m in metrics
        ]
        idle = all(a == b for w in of for a, b in w.means.values())
        text = f"{slip}: {says[slip]}" + "; changed no figure here" * idle
        lines.append(TableLine(text, tuple(row)))
    heads = tuple(spec.METRICS[m].full_title for _ in targets for m in metrics)
    title = "What each slip is worth: as released minus without it, in points (same weights)"
    data = tuple(
        {"slip": w.slip, "target": w.target, "metric": m, "released": a, "without": b}
        for w in made.worth
        for m, (a, b) in w.means.items()
    )
    groups = tuple((target, len(metrics)) for target in targets)
    return Table("slips", title, "slip", heads, tuple(lines), groups, data)


def _gain(pair: tuple[float | None, float | None] | None) -> str:
    if pair is None or pair[0] is None or pair[1] is None:
        return "–"
    return signed(pair[0] - pair[1])


def _files_table(made: Certificate) -> Table:
    lines = [
        TableLine(
            file.role,
            tuple(
                (Span(text),)
                for text in (
                    file.path.name,
                    file.known_as or "not known",
                    file.trained_on,
                    file.content.sha256,
                    file.content.git_blob,
                )
            ),
        )
        for file in made.files
    ]
    heads = ("file", "recognised as", "trained on", "SHA-256", "git blob")
    return Table("files", "Files", "role", heads, tuple(lines))


def _facts_table(made: Certificate) -> Table:
    lines = [TableLine(what, ((Span(text),),)) for what, text in made.facts.items()]
    return Table("conditions", "Conditions", "what", ("",), tuple(lines))


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _record(line: Line) -> dict[str, Any]:
    return {**asdict(line), "difference": line.difference}


# ------------------------------------------------------------------------------ files
def html(made: Certificate) -> str:
    """The page: one file without any outside reference."""
    verdicts = "".join(
        f"<li><b>{html_text(target)}</b>: {html_text(v.words)}</li>"
        for target, v in made.verdicts.items()
    )
    said = [note for note in notes(made)[1:] if note != LEGEND]
    sections = {"slips": "", "files": "", "figures": ""}
    for table in tables(made):
        kind = {"conditions": "files"}.get(table.name, table.name)
        kind = kind if kind in sections else "figures"
        sections[kind] += (
            f"<section><h3>{html_text(table.title)}</h3>"
            f'<div class="wide">{html_table(table)}</div></section>\n'
        )
    parts = {
        "STYLE": asset("certificate.css"),
        "TITLE": html_text(made.title),
        "VERDICT": html_text(made.verdict.words),
        "KIND": "agrees" if made.verdict.within == made.verdict.of else "differs",
        "CAUTION": html_text(f"{CAUTION}, for the reasons below.") if made.unlike else "",
        "VERDICTS": verdicts,
        "NOTES": "".join(f"<li>{html_text(note)}</li>" for note in said),
        "FIGURES": sections["figures"],
        "SLIPS": sections["slips"] or "<p>None was switched off.</p>",
        "FILES": sections["files"],
        "LEGEND": html_text(LEGEND),
    }
    return filled(asset("certificate.html"), parts)


def document(made: Certificate) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "title": made.title,
        "verdict": {**asdict(made.verdict), "words": made.verdict.words},
        "verdicts": {target: v.words for target, v in made.verdicts.items()},
        "figures": [_record(line) for line in made.lines],
        "slips": [
            {"slip": w.slip, "target": w.target, "metric": m, "released": a, "without": b}
            for w in made.worth
            for m, (a, b) in w.means.items()
        ],
        "files": [{**asdict(f), "path": f.path.name} for f in made.files],
        "facts": made.facts,
        "unlike": list(made.unlike),
        "notes": list(made.notes),
        "failed": list(made.failed),
    }
