"""Build the wheel and the sdist of a release into dist/, and check them.  Publishes nothing.

    python .ci/release.py            (`make release`)

Refused before anything is built: a tree with changes, a version that zsad and pyproject.toml do not
share or that CHANGELOG.md has no dated section for, entries left under Unreleased, a dist/ that
holds files.  Checked afterwards: what both files hold, and what `twine check` says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = (  # of the wheel, as patterns: what does nothing without them
    r"zsad/py\.typed",
    r"zsad/backbones/tiny/weights\.safetensors",
    r"zsad/methods/\w+/config\.yaml",
    r"zsad/methods/\w+/states/[\w-]+\.safetensors",
    r"zsad/benchmarks/datasets/\w+\.yaml",
    r"zsad/benchmarks/protocols/[\w-]+\.yaml",
    r"zsad/benchmarks/published/\w+\.csv",
    r"zsad/prompts_cache/.+\.(yaml|json)",
    r"zsad-[\w.]+\.dist-info/licenses/LICENSE",
)
OUTSIDE = (r"(.*/)?tests?/", r"results/(?!README\.md)", r"(.*/)?__pycache__/", r"\.(venv|ci|git)/")


class Refused(Exception):
    """What stands against a release, in one line."""


def version(root: Path) -> str:
    """The version that pyproject.toml and ``zsad`` share."""
    project = re.search(r'^version = "(.+)"$', (root / "pyproject.toml").read_text(), re.M)
    package = re.search(
        r'^__version__ = "(.+)"$', (root / "zsad" / "__init__.py").read_text(), re.M
    )
    if project is None or package is None or project[1] != package[1]:
        told = [found[1] if found else "none" for found in (project, package)]
        raise Refused(f"version: pyproject.toml says {told[0]}, zsad/__init__.py {told[1]}")
    return project[1]


def check_changelog(text: str, wanted: str) -> None:
    """Refuse a changelog without a dated section of the version, or with what is unreleased."""
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    heads = [section.splitlines()[0] for section in sections]
    if not any(re.fullmatch(rf"\[{re.escape(wanted)}\] - \d{{4}}-\d\d-\d\d", h) for h in heads):
        raise Refused(f"CHANGELOG.md: no section '## [{wanted}] - YYYY-MM-DD'; write it")
    for head, section in zip(heads, sections):
        if head == "[Unreleased]" and "\n".join(section.splitlines()[1:]).strip():
            raise Refused(
                "CHANGELOG.md: entries are left under Unreleased; move them to the section of a "
                "version, and raise the version in pyproject.toml and zsad/__init__.py"
            )


def check_tree(root: Path) -> None:
    """Refuse changes that no commit holds, and a dist/ with files of another build."""
    command = ["git", "status", "--porcelain"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    if listed.strip():
        raise Refused(f"the tree has changes; commit them: {listed.splitlines()[0].strip()}")
    if any((root / "dist").glob("*")):
        raise Refused("dist/ holds files of another build; remove them")


def check_contents(names: list[str], *, wheel: bool) -> None:
    """Refuse a distribution that lacks what zsad needs, or holds what is nobody's business.

    ``names``: of its files; those of an sdist without its own folder.
    """
    kind = "the wheel" if wheel else "the sdist"
    needed = INSIDE if wheel else ("LICENSE", r"README\.md", r"CHANGELOG\.md", r"pyproject\.toml")
    for pattern in needed:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise Refused(f"{kind} holds nothing like {pattern}")
    for name in names:
        if any(re.match(pattern, name) for pattern in OUTSIDE):
            raise Refused(f"{kind} holds {name}")


def build(root: Path) -> list[Path]:
    """Build both into dist/; the wheel from the sdist, as a packager would."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(root / "dist")]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"the build failed: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    return sorted((root / "dist").iterdir())


def release(root: Path) -> list[Path]:
    """All of it; the two files.  Raises :class:`Refused`."""
    wanted = version(root)
    check_changelog((root / "CHANGELOG.md").read_text(encoding="utf-8"), wanted)
    check_tree(root)
    made = build(root)
    for path in made:
        if path.suffix == ".whl":
            check_contents(zipfile.ZipFile(path).namelist(), wheel=True)
        else:
            with tarfile.open(path) as archive:
                names = [name.partition("/")[2] for name in archive.getnames()]
            check_contents(names, wheel=False)
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, made)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"twine check: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    return made


if __name__ == "__main__":
    try:
        for path in release(ROOT):
            print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 2**20:.1f} MiB")
    except Refused as error:
        sys.exit(f"release: {error}")
