"""`zsad show NAME --cite` names all authors where they are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zsad import registry
from zsad.cli.cite import bibtex
from zsad.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def test_known_authors_are_those_of_the_first_paper_alone() -> None:
    first, second = bibtex("x", "Gu et al., A, ACM MM 2024; Li et al., B, 2025", ["Gu, Zhaopeng"])
    assert "author = {Gu, Zhaopeng}," in first
    assert "author = {Li and others}," in second


def test_authors_are_those_of_the_citation_file(capsys: pytest.CaptureFixture[str]) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    for name, paper in zip(("filo", "alfa", "faprompt", "kanoclip"), cited):
        given = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
        assert list(registry.method(name).authors) == given
        assert main(["show", name, "--cite"]) == 0
        out = capsys.readouterr().out
        assert f"author = {{{' and '.join(given)}}}," in out
        assert f"year = {{{paper['year']}}}," in out
