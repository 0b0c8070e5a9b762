"""The type check reaches everything that the wheel holds, and names the files of the checkout."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".ci" / "typecheck.py"
WRONG = """

from zsad.types import MapSpec as _MapSpec

sigma: str = 3
wrong_keyword = _MapSpec(nonsense=1)


class Misspelt(WinClip):
    def probe(self) -> object:
        return self.config.nonsense
"""


@pytest.fixture(scope="module")
def typecheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("typecheck", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_git_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit hook's variables would lead git to its own repository."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)


def git_init(folder: Path, *added: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    if added:
        subprocess.run(["git", "add", *added], cwd=folder, check=True)


def test_it_lays_out_what_the_wheel_holds(typecheck: ModuleType) -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    moved = wheel["sources"]
    assert {f: moved.get(f, f) for f in wheel["only-include"]} == typecheck.WHEEL
    files = typecheck.layout(ROOT)
    assert files["zsad/methods/winclip/method.py"] == "methods/winclip/method.py"
    assert files["zsad/benchmarks/tiny/train.py"] == "benchmarks/tiny/train.py"
    assert files["zsad/py.typed"] == "zsad/py.typed"
    code = {
        p.relative_to(ROOT).as_posix() for f in typecheck.WHEEL for p in (ROOT / f).rglob("*.py")
    }
    assert code <= set(files.values())


def test_new_files_count_and_ignored_and_deleted_ones_do_not(
    typecheck: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / ".gitignore").write_text("build/\n")
    for name in (
        "zsad/a.py",
        "zsad/gone.py",
        "methods/new/b.py",
        "methods/build/c.py",
        "docs/d.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    git_init(tmp_path, "zsad")
    (tmp_path / "zsad/gone.py").unlink()
    expected = {"zsad/a.py": "zsad/a.py", "zsad/methods/new/b.py": "methods/new/b.py"}
    assert typecheck.layout(tmp_path) == expected


def test_a_folder_without_git_is_an_error(typecheck: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="git cannot list its files; run this in a clone"):
        typecheck.layout(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("zsad/methods/x/m.py:3: error: no", "methods/x/m.py:3: error: no"),
        ("zsad/methods/x/m.py: note: In f:", "methods/x/m.py: note: In f:"),
        ("Found 2 errors in 1 file", "Found 2 errors in 1 file"),
        ("elsewhere/torch.pyi:3: note: here", "elsewhere/torch.pyi:3: note: here"),
    ],
)
def test_messages_name_the_files_of_the_checkout(
    typecheck: ModuleType, line: str, expected: str
) -> None:
    assert typecheck.as_in_checkout(line, {"zsad/methods/x/m.py": "methods/x/m.py"}) == expected


def test_the_check_is_strict_and_part_of_lint() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    assert not settings.get("disable_error_code")
    weakened = [k for k, v in settings.items() if v is False or k.startswith("allow_")]
    assert weakened == []
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint is not None
    assert ".ci/typecheck.py" in lint[1]


@pytest.mark.slow
def test_a_mistake_in_a_method_is_found_by_file_and_line(
    typecheck: ModuleType, tmp_path: Path
) -> None:
    for name in [*typecheck.layout(ROOT).values(), "pyproject.toml", ".ci/typecheck.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    git_init(tmp_path)
    file = tmp_path / "methods" / "winclip" / "method.py"
    right = file.read_text(encoding="utf-8")
    file.write_text(right + WRONG, encoding="utf-8")
    # The cache of `make lint`: two seconds instead of a minute.
    command = [sys.executable, tmp_path / ".ci/typecheck.py", "--cache-dir", ROOT / ".mypy_cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    place = re.compile(r"^methods/winclip/method\.py:(\d+): error: (.*)$", re.MULTILINE)
    lines = (right + WRONG).splitlines()
    assert [(lines[int(n) - 1].strip(), message) for n, message in place.findall(done.stdout)] == [
        (
            "sigma: str = 3",
            "Incompatible types in assignment "
            '(expression has type "int", variable has type "str")  [assignment]',
        ),
        (
            "wrong_keyword = _MapSpec(nonsense=1)",
            'Unexpected keyword argument "nonsense" for "MapSpec"  [call-arg]',
        ),
        ("return self.config.nonsense", '"Config" has no attribute "nonsense"  [attr-defined]'),
    ]
