"""Pages as Markdown, LaTeX, CSV and HTML.  Every text is escaped."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from zsad.errors import shown
from zsad.io.cells import cell
from zsad.page import html_text
from zsad.tables.model import Line, Page, Span, Spans, Table


# ------------------------------------------------------------------------------ Markdown
def markdown(page: Page) -> str:
    """The page as GitHub-flavoured Markdown."""
    parts = [f"# {_md(page.title)}"]
    for table in page.tables:
        parts.append(f"## {_md(table.title)}\n\n{_markdown_table(table)}")
    parts.append("\n".join(f"- {_md(note)}" for note in page.notes))
    return "\n\n".join(p for p in parts if p) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [[_md(line.label), *map(_markdown_cell, line.cells)] for line in table.lines]
    heads = [_md(table.corner), *map(_md, table.heads)]
    if table.groups:  # Markdown has one row of headings: the groups', each over its first column
        rows.insert(0, heads)
        heads = ["", *(t for g, n in table.groups for t in [_md(g), *[""] * (n - 1)])]
    widths = [max(3, *(len(r[i]) for r in [heads, *rows])) for i in range(len(heads))]
    lines = [heads, ["-" * w + (":" if i else "-") for i, w in enumerate(widths)], *rows]
    return "\n".join(
        "| " + " | ".join(text.ljust(w + 1) for text, w in zip(line, widths)) + " |"
        for line in lines
    )


def _markdown_cell(cell: Spans) -> str:
    marks = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    return "".join(marks[s.rank].format(_md(s.text)) for s in cell)


def _md(text: str) -> str:
    text = re.sub(r"([\\`*<>|]|&(?=#?\w+;))", r"\\\1", shown(text.replace("\n", " ")))
    text = text.replace("](", r"]\(")  # no links
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # underscores inside words are plain


# --------------------------------------------------------------------------------- LaTeX
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "¶": r"$^\P$",
    "Δ": r"$\Delta$",
    "→": r"$\to$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
}


def latex(page: Page) -> str:
    """The page as LaTeX tables for the packages booktabs and (for wide ones) graphicx."""
    parts = [f"% {shown(page.title)}\n% needs \\usepackage{{booktabs,graphicx}}"]
    parts += [_latex_table(page, table, _latex_notes(page, table)) for table in page.tables]
    return "\n\n".join(parts) + "\n"


def _label(page: Page, table: Table) -> str:
    return "tab:" + re.sub("[^a-z0-9:-]", "-", f"{page.name}:{table.name}".lower())


def _latex_notes(page: Page, table: Table) -> list[str]:
    """What stands below a table: under the last one of a page the notes on all of them, once."""
    if table is not page.tables[-1] or not page.notes:
        return []
    text = _tex(" ".join(page.notes))
    if len(page.tables) > 1:
        first = _label(page, page.tables[0])
        to = "and" if len(page.tables) == 2 else "to"
        text = f"Tables~\\ref{{{first}}} {to} \\ref{{{_label(page, table)}}}: {text}"
    return [f"\\\\[2pt]\\parbox{{\\linewidth}}{{\\footnotesize {text}}}"]


def _latex_table(page: Page, table: Table, notes: Sequence[str]) -> str:
    columns = len(table.heads)
    body: list[str] = []
    if table.groups:
        spans = [f"\\multicolumn{{{n}}}{{c}}{{{_tex(g)}}}" for g, n in table.groups]
        body.append(" & ".join(["", *spans]) + r" \\")
        start, rules = 2, []
        for group, n in table.groups:
            if group:
                rules.append(f"\\cmidrule(lr){{{start}-{start + n - 1}}}")
            start += n
        body.append(" ".join(rules))
    body.append(" & ".join(map(_tex, [table.corner, *table.heads])) + r" \\")
    body.append(r"\midrule")
    mark = f" ({page.mark})" if page.mark else ""  # beside every table, wherever it is taken to
    before: Line | None = None
    for line in table.lines:
        if before is not None and (line.rule or (line.mean and not before.mean)):
            body.append(r"\midrule")
        body.append(" & ".join([_first(line.label), *map(_latex_cell, line.cells)]) + r" \\")
        before = line
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            f"\\caption{{{_tex(page.title)}: {_tex(table.title)}{_tex(mark)}}}",
            f"\\label{{{_label(page, table)}}}",
            r"\resizebox{\linewidth}{!}{%",
            f"\\begin{{tabular}}{{l{'c' * columns}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            *notes,
            r"\end{table}",
        ]
    )


def _first(label: str) -> str:
    """The first cell of a line: a "[" or "*" there would be taken for an option of the line end
    before it."""
    return "{}" * label.startswith(("[", "*")) + _tex(label)


def _latex_cell(cell: Spans) -> str:
    marks = {0: "{}", 1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}
    return "".join(marks[s.rank].format(_tex(s.text)) for s in cell)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in shown(text.replace("\n", " ")))


# ----------------------------------------------------------------------------------- CSV
def comma_separated(page: Page) -> str:
    """The page's figures as one long CSV table, percentages not rounded to one decimal.

    A column ``mark`` is there where something has to be said of the weights behind all of them."""
    mark = {"mark": page.mark} if page.mark else {}
    heads = [
        "page",
        "table",
        *mark,
        *dict.fromkeys(k for t in page.tables for d in t.data for k in d),
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, heads, lineterminator="\n")
    writer.writeheader()
    for table in page.tables:
        for entry in table.data:
            row = {"page": page.name, "table": table.name, **mark, **entry}
            writer.writerow({key: cell(value) for key, value in row.items()})
    return buffer.getvalue()


# ---------------------------------------------------------------------------------- HTML
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.25rem .7rem;text-align:center;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}thead{border-bottom:1px solid;}"
    "tr.mean{font-style:italic}tr.first{border-top:1px solid}div.wide{overflow-x:auto}"
    "table{border-top:2px solid;border-bottom:2px solid}footer{font-size:.85em}"
)


def html_page(page: Page) -> str:
    """The page as one self-contained HTML file."""
    body = "".join(
        f"<h2>{html_text(t.title)}</h2><div class=wide>{html_table(t)}</div>\n" for t in page.tables
    )
    body += "".join(drawing.svg for drawing in page.drawings)
    notes = "".join(f"<li>{html_text(note)}</li>" for note in page.notes)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{html_text(page.title)}</title>\n"
        f"<style>{_STYLE}</style>\n<h1>{html_text(page.title)}</h1>\n{body}"
        f"<footer><ul>{notes}</ul></footer></html>\n"
    )


def html_table(table: Table) -> str:
    """One table as an HTML fragment."""
    groups = "".join(f"<th colspan={n}>{html_text(g)}</th>" for g, n in table.groups)
    above = f"<tr><th></th>{groups}</tr>" if groups else ""
    heads = "".join(f"<th>{html_text(h)}</th>" for h in [table.corner, *table.heads])
    rows, before = [], False
    for line in table.lines:
        first = line.rule or (line.mean and not before)
        kind = " ".join(["mean"] * line.mean + ["first"] * first)
        before = line.mean
        cells = "".join(f"<td>{''.join(map(_html_span, c))}</td>" for c in line.cells)
        rows.append(f'<tr class="{kind}"><td>{html_text(line.label)}</td>{cells}</tr>')
    return f"<table><thead>{above}<tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _html_span(span: Span) -> str:
    marks = {0: "{}", 1: "<b>{}</b>", 2: "<u>{}</u>"}
    return marks[span.rank].format(html_text(span.text))


FORMATS: dict[str, Callable[[Page], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": comma_separated,
    "html": html_page,
}
