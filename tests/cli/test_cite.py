"""`zsad show NAME --cite`: what the line about a paper says, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zsad import registry
from zsad.cli.cite import bibtex
from zsad.cli.main import main
from zsad.data.catalog import load_spec

ROOT = Path(__file__).resolve().parents[2]


def test_a_known_line() -> None:
    line = "Gu et al., FiLo: Anomalies & Words, in Two Parts, ACM MM 2024"
    assert bibtex("filo", "FiLo", line).splitlines() == [
        "@inproceedings{gu2024filo,",
        r"  title = {{FiLo:} Anomalies \& Words, in Two Parts},",
        "  author = {Gu and others},",
        "  booktitle = {ACM MM},",
        "  year = {2024},",
        "}",
    ]


@pytest.mark.parametrize(
    ("line", "kind", "key", "said"),
    [
        ("Wieler and Hahn, A B, DAGM Symposium 2007", "inproceedings", "wieler2007a", "and Hahn"),
        ("Li et al., Tests, Solar Energy 2019", "article", "li2019tests", "{Solar Energy}"),
        ("Heckler-Kram et al., Data, 2025, arXiv 2503.21622", "misc", "hecklerkram2025data", "25"),
        ("drawn for this page", "misc", "x", "note = {drawn for this page}"),
    ],
)
def test_other_lines(line: str, kind: str, key: str, said: str) -> None:
    text = bibtex("x", "X", line)
    assert text.startswith(f"@{kind}{{{key},")
    assert said in text


def test_every_method_and_dataset_can_be_cited(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {n: e.paper for n, e in registry.methods().items()}
    lines |= {n: load_spec(n).citation for n in registry.list_datasets()}
    keys = set()
    for name, line in lines.items():
        if line:
            text = bibtex(name, name, line)
            assert text.count("{") == text.count("}")
            keys.add(text.splitlines()[0])
    assert len(keys) > 40
    assert {n for n, line in lines.items() if not line} == {"synthetic"}
    assert main(["show", "synthetic", "--cite"]) == 2
    assert capsys.readouterr().err == (
        "zsad: error: --cite: dataset synthetic names no paper to cite\n"
    )


def test_authors_are_those_of_the_citation_file(capsys: pytest.CaptureFixture[str]) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    for name, paper in zip(("filo", "alfa", "faprompt", "kanoclip"), cited):
        given = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
        assert list(registry.method(name).authors) == given
        assert main(["show", name, "--cite"]) == 0
        out = capsys.readouterr().out
        assert f"author = {{{' and '.join(given)}}}," in out
        assert f"year = {{{paper['year']}}}," in out
