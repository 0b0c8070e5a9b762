"""A hook of MkDocs: the notes of methods become pages, and links out of docs/ lead to them.

A link to a file that is no page of the site stays as its words alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
EXTRA = {f"methods/{p.parent.name}.md": p for p in sorted(ROOT.glob("methods/*/README.md"))}
IMAGE = re.compile(r"(!\[[^\]]*\])\((\.\./[^)\s]+)\)")  # of pictures outside docs/
EXTRA |= {name.lower(): ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the notes of all methods where the navigation says ``methods``."""
    notes = [name for name in EXTRA if name.startswith("methods/")]
    nav: list[Any] = [{"Methods": notes} if e == {"Methods": "methods"} else e for e in config.nav]
    config.nav = [*nav, {"Project": [n for n in EXTRA if n not in notes]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notes of methods, and what lies at the top."""
    for name, path in EXTRA.items():
        text = path.read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    for path in sorted(Path(config.docs_dir).glob("*.md")):
        for _, target in IMAGE.findall(path.read_text(encoding="utf-8")):
            picture = (path.parent / target).resolve()
            name = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let every link lead to a page, or be words."""
    source = EXTRA.get(page.file.src_uri, Path(config.docs_dir) / page.file.src_uri)
    pages = {path.resolve(): name for name, path in EXTRA.items()}

    def led(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = (source.parent / target).resolve()
        name = pages.get(path)
        if name is None and path.is_relative_to(config.docs_dir):
            name = path.relative_to(config.docs_dir).as_posix()
        if name is None or files.get_file_from_path(name) is None:
            return words
        there = os.path.relpath(name, os.path.dirname(page.file.src_uri) or ".")
        return f"[{words}]({there}{anchor})"

    return LINK.sub(led, IMAGE.sub(lambda m: f"{m[1]}({m[2].removeprefix('../')})", markdown))
