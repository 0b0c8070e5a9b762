"""Foreign texts in tables: shown as text in every format, and acting in none."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from tests.hostile import TEXTS, is_plain
from zsad.tables.formats import FORMATS, comma_separated, html_page, latex, markdown
from zsad.tables.model import Line, Page, Span, Table, signed


def page(text: str) -> Page:
    """A page that holds ``text`` wherever somebody's name may stand."""
    table = Table(
        "overview",
        text,
        text,
        (text, "b"),
        (Line(text, ((Span(text, 1),), (Span("1.0", 2), Span(text)))),),
        ((text, 1), ("", 1)),
        ({"row": text, "method": text, "metric": "auroc", "value": -1.5},),
    )
    return Page("a/overview", text, (table,), (text,))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", FORMATS)
def test_no_text_breaks_lines_or_acts_on_a_terminal(name: str, text: str) -> None:
    found, plain = FORMATS[name](page(text)), FORMATS[name](page("word"))
    assert is_plain(found)
    assert found.count("\n") == plain.count("\n")
    found.encode("utf-8")


@pytest.mark.parametrize(
    "text", [*TEXTS.values(), "=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1", "a;=1"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(comma_separated(page(text))))
    for key in ("row", "method"):
        for cell in row[key].split(";"):
            assert not re.match(r"\s*[=+\-@＝＋－＠]", cell)
    assert row["value"] == "-1.5"


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, object]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_is_a_tag(text: str) -> None:
    assert Tags(html_page(page(text))).tags == Tags(html_page(page("word"))).tags


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_is_a_command_of_latex(text: str) -> None:
    """Every special character belongs to what we write ourselves."""

    def commands(made: str) -> list[str]:
        known = r"\\text(?:backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\\[&%$#_{}]"
        known += r"|\n\{\}(?=[\[*])"
        rest = re.sub(known, "", made.partition("\n")[2])  # the first line is a comment
        return re.findall(r"\\[A-Za-z]+|[\\&%$#_^~{}]", rest)

    assert commands(latex(page(text))) == commands(latex(page("word")))


@pytest.mark.parametrize("label", ["[x] 1", "*a"])
def test_no_label_is_an_option_of_the_line_end_before_it(label: str) -> None:
    """LaTeX reads on after a line end for a star and for a length in brackets."""
    ends = re.findall(r"\\\\\n(.)", latex(page(label)))
    assert ends
    assert not set(ends) & {"[", "*"}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_is_markup_of_markdown(text: str) -> None:
    def marks(made: str) -> list[str]:
        return re.findall(r"(?<!\\)(?:[`*<>|]|&#?\w+;|\]\()", re.sub(r"\\\\", "", made))

    assert marks(markdown(page(text))) == marks(markdown(page("word")))


def test_what_rounds_to_nothing_has_one_sign() -> None:
    assert [signed(v) for v in (-0.04, 0.04, -0.0, -0.06, 12.34, None)] == [
        "+0.0",
        "+0.0",
        "+0.0",
        "-0.1",
        "+12.3",
        "–",
    ]
    assert signed(-0.004, 2) == "+0.00"
