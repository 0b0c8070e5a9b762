"""Every command, Python example and example file of README, CONTRIBUTING and docs/ works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import COMMANDS, SHOWN, blocks
from tests.docs.workspace import ROOT, Workspace
from zsad.cli.main import parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTES = sorted(ROOT.glob("methods/*/README.md"))
SLOW = (ROOT / "README.md", ROOT / "docs" / "reproduce.md")
RUN = [
    pytest.param(p, marks=pytest.mark.slow) if p in SLOW else p  # of more than ten seconds
    for p in PAGES
]
named = {"ids": lambda path: path.name if path.parent.name != "methods" else path.parts[-2]}


@pytest.mark.parametrize("page", RUN, **named)
def test_what_a_page_says_works(page: Path, workspace: Workspace) -> None:
    for block in blocks(page):
        assert block.language, f"{block.place}: say in which language the block is"
        if block.path or block.language in ("python", *COMMANDS):
            workspace.take(block)
        else:
            assert block.language in SHOWN, f"{block.place}: nothing tests {block.language}"


@pytest.mark.parametrize("page", NOTES, ids=lambda path: path.parent.name)
def test_commands_in_the_notes_of_methods_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^\s*zsad (.+?)(?:\s+#.*)?$", text, re.M)
    for command in commands:
        parse(command.replace("'", '"').split())


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=lambda p: "/".join(p.parts[-2:]))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if heading:
            lines = found.read_text(encoding="utf-8").splitlines()
            anchors = [anchor(line) for line in lines if line.startswith("#")]
            assert heading in anchors, f"{page.name}: {target}"


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return text.replace(" ", "-")


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    names = [p.relative_to(ROOT / "docs").as_posix() for p in PAGES[2:]]
    assert [n for n in names if n != "README.md" and f"({n})" not in index] == []


def test_pictures_are_small() -> None:
    """A page must load quickly; sheets of the generator are linked, not shown."""
    for page in PAGES[:1]:
        for target in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).stat().st_size < 200_000, target
