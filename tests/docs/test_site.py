"""The site of `make docs`: its navigation holds every page, and it is built without a warning."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import zsad
from tests.docs.test_architecture import found
from tests.docs.test_pages import NOTES, PAGES
from tests.docs.workspace import ROOT

CONFIG = ROOT / ".ci" / "mkdocs.yml"


class _Loader(yaml.SafeLoader):
    """YAML whose tags of Python objects are passed over."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, tag, node: tag)


def pages(nav: Any) -> Iterator[str]:
    """The pages of a navigation, of all depths."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(entry)


def test_the_navigation_holds_every_page_once_and_every_page_is_tested() -> None:
    listed = list(pages(yaml.load(CONFIG.read_text(encoding="utf-8"), _Loader)["nav"]))
    assert len(listed) == len(set(listed))
    on_disk = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert {*listed} - {"methods"} == on_disk
    assert {ROOT / "docs" / name for name in on_disk} <= set(PAGES)  # which tests execute
    methods = {p.parent.name for p in ROOT.glob("methods/*/config.yaml")}
    assert {p.parent.name for p in NOTES} == methods


def test_the_interface_shows_modules_that_exist_and_what_zsad_gives() -> None:
    shown = [
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)
    ]
    assert len(shown) == len(set(shown)) > 30
    assert [name for name in shown if not found(name.split("."))] == []
    assert {place for name, place in zsad._PUBLIC.items()} <= set(shown)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("needs the extra `docs`")
    for name in (".ci", "docs", "methods", "benchmarks/tiny", "zsad"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "README.md", "CITATION.cff", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--config-file", str(tmp_path / ".ci" / "mkdocs.yml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "build" / "site"
    page = (site / "api" / "running.html").read_text(encoding="utf-8")
    assert [n for n, place in zsad._PUBLIC.items() if f'id="{place}.{n}"' not in page] == []
    assert "fpr_limit" in page
    assert (site / "methods" / "filo.html").is_file()
    foreign = re.compile(r'(?:src|href)="https?://[^"]+\.(?:js|css)"')  # nothing from elsewhere
    assert [p.name for p in site.rglob("*.html") if foreign.search(p.read_text())] == []
