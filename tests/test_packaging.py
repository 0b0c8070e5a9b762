"""The wheel carries everything and works outside the checkout."""

from __future__ import annotations

import ast
import email
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into an empty folder."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run python outside the checkout; an editable zsad of this environment stays hidden."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ZSAD_")}
    env["PYTHONPATH"] = str(installed)
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, check=True
    )


def test_the_wheel_holds_code_and_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"zsad/{path.relative_to(ROOT).as_posix()}"
        for folder in ("methods", "benchmarks", "prompts_cache")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".csv", ".md")
    }
    expected |= {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "zsad").rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".json", ".safetensors", ".typed")
    }
    assert "zsad/methods/clip/config.yaml" in expected
    assert "zsad/benchmarks/datasets/elpv.yaml" in expected
    assert expected - names == set()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"zsad"}
    assert not [n for n in names if "/tests/" in n or n.endswith(".pyc")]
    # the room zsad/results is code; a results folder holds records, tables and pages
    assert not [n for n in names if "/results/" in n and not n.endswith(".py")]


def test_the_metadata_is_honest(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(n for n in archive.namelist() if n.endswith("METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Name"] == "zsad"
    expected = {"dev", "elpv", "ray", "grounding", "groundingdino", "cpu", "app", "heic"}
    assert expected <= set(metadata.get_all("Provides-Extra", []))
    assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
    points = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
    assert "zsad = zsad.cli.main:main" in archive.read(points).decode()


def test_the_installed_wheel_lists_and_shows(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import zsad; print(zsad.__file__)")
    assert where.stdout.startswith(str(installed))
    for what in ("methods", "datasets", "backbones", "protocols"):
        here = subprocess.run(
            [sys.executable, "-m", "zsad", "list", what],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        there = run(installed, tmp_path, "-m", "zsad", "list", what)
        assert there.stdout == here.stdout
        assert there.stdout.count("\n") > 1
    assert (
        "zsad/methods/winclip" in run(installed, tmp_path, "-m", "zsad", "show", "winclip").stdout
    )


@pytest.mark.slow
def test_the_installed_wheel_imports_every_method(installed: Path, tmp_path: Path) -> None:
    code = (
        "from zsad import registry\nfor e in registry.methods().values(): e.load(); print(e.name)"
    )
    assert "clip" in run(installed, tmp_path, "-c", code).stdout.split()


# Read by other libraries, as plug-ins: pandas writes Parquet with pyarrow, tifffile decodes with
# imagecodecs.
PLUG_INS = {"pyarrow", "imagecodecs"}


def names(requirements: list[str]) -> set[str]:
    """The distributions of requirements, in their normalised spelling."""
    words = (re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", word).lower() for word in words} - {"zsad"}


def test_what_is_imported_is_what_is_required() -> None:
    """No hard dependency that only tests use, and none that comes along by chance."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = names(project["dependencies"])
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    optional = set().union(*(names(listed) for listed in extras.values()))
    providers = packages_distributions()
    imported: set[str] = set()
    for folder in ("zsad", "methods", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add((node.module or "").split(".")[0])
    imported -= {*sys.stdlib_module_names, "zsad"}
    used = names(
        [distribution for name in imported for distribution in providers.get(name, [name])]
    )
    assert used - required - optional == set()
    assert required - used - PLUG_INS == set()


def test_constraints_pin_every_dependency_exactly() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    assert all(version and "+" not in version for version in pins.values())
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["elpv"]]
    wanted += [*extras["grounding"], *extras["groundingdino"]]
    for requirement in wanted:
        name = requirement.split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        assert name == "zsad" or name in pinned, f"{name} has no pin in constraints.txt"


def test_the_citation_names_the_four_papers() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    text = str(cited["references"])
    for method in ("FiLo", "ALFA", "FAPrompt", "KAnoCLIP"):
        assert method in text
    assert len(cited["references"]) == 4
    assert all(r["authors"] and r["year"] for r in cited["references"])


def test_make_and_ci_and_readme_agree() -> None:
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    for target in ("setup", "demo", "test", "lint", "tables", "bench", "speed"):
        assert f"\n{target}: " in makefile
    assert "make demo" in readme
    assert "make test" in readme
    assert "make test" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_changelog_has_this_version_and_what_comes_next() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert heads[0] == ("Unreleased", "")
    assert project["version"] in [version for version, date in heads[1:] if date]
    assert all(date for _, date in heads[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Moved"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds
