"""The page about the architecture is true: its rooms and ranks, and the files that pages name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.workspace import ROOT
from tests.test_house import RANKS

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = sorted(
    p
    for pattern in ("*.md", "docs/**/*.md", "methods/*/README.md", "results/README.md")
    for p in ROOT.glob(pattern)
    if p.name != "CHANGELOG.md"  # which speaks of names that are gone
)
FOLDERS = ("zsad", "methods", "benchmarks", "tests", "docs", "prompts_cache", ".ci")


def test_the_page_shows_the_ranks_that_are_checked() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| .+? \| (.+?) \|$", PAGE, re.M)
    assert {room: int(rank) for rank, room, _ in rows} == RANKS
    for rank, room, allowed in rows:
        highest = int(rank) - 1
        expected = {-1: "nothing", 0: "rank 0"}.get(highest, f"ranks 0 to {highest}")
        assert allowed == expected, room


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(rf"(?<![\w./-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w)", text)
    for path in paths:
        known = any((top / path).exists() for top in (ROOT, ROOT / "zsad"))
        assert known or "oddpatch" in path, path  # the example of docs/add-a-method.md
    for dotted in re.findall(r"(?<![\w./-])zsad(?:\.\w+)+", text):
        assert "oddpatch" in dotted or found(dotted.split(".")), dotted


def test_paths_of_the_architecture_page_exist() -> None:
    """Those that it names without ``zsad/`` in front."""
    for path in re.findall(r"`([a-z_]+(?:/\w+)*(?:\.py|/))`", PAGE):
        assert any((top / path).exists() for top in (ROOT, ROOT / "zsad")), path


def test_the_new_names_of_the_changelog_exist() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    moved = text.partition("### Moved")[2].partition("\n## ")[0]
    new = [line.split(" | ")[-1] for line in moved.splitlines() if line.startswith("| ")]
    assert len(new) > 50
    for dotted in re.findall(r"(?<![\w./-])zsad(?:\.\w+)+", "\n".join(new)):
        assert found(dotted.split(".")), dotted


def found(parts: list[str]) -> bool:
    """Whether a dotted name is a package, a module, a name in one, or a member of that."""
    beside = len(parts) > 1 and parts[1] in ("methods", "benchmarks", "prompts_cache")
    place = ROOT if beside else ROOT / "zsad"
    for i, part in enumerate(parts[1:], start=1):
        if (place / part).is_dir():
            place = place / part
        elif (place / f"{part}.py").is_file():
            rest = parts[i + 1 :]
            return not rest or names(place / f"{part}.py", rest[0])
        else:
            return names(place / "__init__.py", part)
    return True


def names(module: Path, name: str) -> bool:
    """Whether a module defines, imports or lists a name."""
    if not module.is_file():
        return False
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if getattr(node, "name", None) == name or getattr(node, "id", None) == name:
            return True
        if isinstance(node, ast.Constant) and node.value == name:
            return True
        if isinstance(node, ast.alias) and name in (node.asname, node.name):
            return True
    return False
