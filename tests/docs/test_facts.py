"""What the pages state is true: messages, published figures, differences."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.workspace import ROOT
from zsad.data.catalog import load_spec, select_datasets
from zsad.protocols import load_protocol
from zsad.results.published import Published
from zsad.runner.request import build_request

DOCS = ROOT / "docs"
HEADS = {
    "image AUROC": "image_auroc",
    "image AP": "image_ap",
    "image F1-max": "image_f1max",
    "pixel AUROC": "pixel_auroc",
    "pixel AUPRO": "pixel_aupro",
    "pixel F1-max": "pixel_f1max",
}


@cache
def said() -> str:
    """Every text in the source, one per line; what is filled in stands as an ellipsis."""
    found = []
    for path in sorted((ROOT / "zsad").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


MESSAGES = re.findall(
    r"^### `([^`]+)`", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.M
)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_explained_still_exists(message: str) -> None:
    pattern = r"[^\n]*?".join(map(re.escape, message.split("…")))
    assert re.search(pattern, said()), f"nothing says: {message}"


def published_tables() -> list[tuple[str, list[list[str]]]]:
    """Protocol and rows of every table that is marked as published."""
    text = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- published: (\S+) -->\n((?:\|.*\n)+)", text)
    return [
        (name, [[c.strip() for c in line.strip("|").split("|")] for line in body.splitlines()])
        for name, body in tables
    ]


def test_published_figures_are_those_of_the_papers() -> None:
    published = Published.load()
    tables = published_tables()
    assert [name for name, _ in tables] == ["filo", "alfa", "faprompt", "kanoclip"]
    for name, (heads, _, *rows) in tables:
        datasets = select_datasets(load_protocol(name).datasets)
        assert [row[0] for row in rows] == [load_spec(d).title for d in datasets]
        for dataset, row in zip(datasets, rows):
            for head, shown in zip(heads[1:], row[1:]):
                found = published.lookup(name, dataset, metric=HEADS[head], protocol=name)
                expected = f"{found[0].value:.1f}" if found else "–"
                assert shown == expected, f"{name}, {dataset}, {head}"


def test_proofs_of_the_comparison_are_there() -> None:
    text = (DOCS / "why-zsad.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)`", text)
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_name_of_the_papers_tables_runs_or_can_be_imported() -> None:
    """The table has all of them, and says "runs" of those alone that a method of ours has."""
    text = (DOCS / "outside-results.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| (runs|import) \|", text, re.M))
    papers = {"FiLo", "ALFA", "FAPrompt", "KAnoCLIP"}
    # with references; with anomalyclip.ensemble=10
    printed = {"WinCLIP+": {"winclip"}, "AnomalyCLIP Ensemble": {"anomalyclip"}}
    for r in Published.load().references:
        if r.paper in papers and not r.protocol.endswith("-ablation"):
            printed.setdefault(r.name, set()).update(r.methods)
    assert rows.keys() == printed.keys()
    assert len(rows) == 27
    for name, how in rows.items():
        assert (how == "runs") == bool(printed[name]), name


def test_what_a_name_of_the_papers_tables_runs_as_is_a_request() -> None:
    """The method exists, and every setting beside it is one that it has; no two names are alike."""
    text = (DOCS / "outside-results.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+? \| runs \| (.+?) \|$", text, re.M)
    asked = []
    for words in (re.findall(r"`([^`]+)`", row) for row in rows):
        method, settings = words[0], words[1:]
        request = build_request(method, "synthetic", overrides=settings, offline=True)
        assert len(request.columns) == 1
        asked.append((method, *settings))
    assert len(set(asked)) == len(asked) == 20
