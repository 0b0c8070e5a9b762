"""`make release` refuses what is not ready, and what it builds is whole."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`.ci/release.py`, which is no module of zsad."""
    spec = importlib.util.spec_from_file_location("ci_release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


READY = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n\n### Added\n\n- a\n"


def test_a_changelog_that_is_ready_passes(script: ModuleType) -> None:
    script.check_changelog(READY, "1.2.3")
    script.check_changelog(READY.replace("## [Unreleased]\n\n", ""), "1.2.3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (READY.replace("1.2.3", "1.2.4"), r"no section '## \[1\.2\.3\] - YYYY-MM-DD'"),
        (READY.replace(" - 2026-12-01", ""), r"no section '## \[1\.2\.3\]"),
        (READY.replace("[Unreleased]\n", "[Unreleased]\n\n- b\n"), "left under Unreleased"),
    ],
)
def test_a_changelog_that_is_not_ready_is_refused(
    script: ModuleType, text: str, message: str
) -> None:
    with pytest.raises(script.Refused, match=message):
        script.check_changelog(text, "1.2.3")


def test_this_version_is_one(script: ModuleType, tmp_path: Path) -> None:
    import zsad

    assert script.version(ROOT) == zsad.__version__
    (tmp_path / "zsad").mkdir()
    (tmp_path / "zsad" / "__init__.py").write_text('__version__ = "1"\n')
    (tmp_path / "pyproject.toml").write_text('version = "2"\n')
    with pytest.raises(script.Refused, match=r"pyproject\.toml says 2, zsad/__init__\.py 1"):
        script.version(tmp_path)


def test_a_tree_with_changes_is_refused(script: ModuleType, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    script.check_tree(tmp_path)
    (tmp_path / "new.txt").write_text("")
    with pytest.raises(script.Refused, match=r"commit them: \?\? new\.txt"):
        script.check_tree(tmp_path)


def test_the_wheel_is_whole_and_holds_no_test(script: ModuleType, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    script.check_contents(names, wheel=True)
    with pytest.raises(script.Refused, match="holds zsad/tests/a"):
        script.check_contents([*names, "zsad/tests/a.png"], wheel=True)
    without = [n for n in names if "/states/" not in n]
    with pytest.raises(script.Refused, match="states"):
        script.check_contents(without, wheel=True)


@pytest.mark.slow
def test_a_release_of_this_tree(script: ModuleType, tmp_path: Path) -> None:
    """Of a copy that is ready: one wheel, one sdist, and nothing else is written."""
    pytest.importorskip("twine", reason="needs the extra `dev`")
    copy = tmp_path / "zsad"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(copy)], check=True)
    version = script.version(copy)
    (copy / "CHANGELOG.md").write_text(READY.replace("1.2.3", version))
    git = ["git", "-C", str(copy), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "commit", "-qam", "Prepare a release"], check=True)
    command = [sys.executable, str(copy / ".ci" / "release.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = sorted(p.name for p in (copy / "dist").iterdir())
    assert made == [f"zsad-{version}-py3-none-any.whl", f"zsad-{version}.tar.gz"]
    status = [*git, "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr == "release: dist/ holds files of another build; remove them\n"
