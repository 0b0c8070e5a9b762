"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "zsad"
LONGEST = 450  # lines

# A room imports only rooms of its own rank or of a lower one.
RANKS: dict[str, int] = {
    **dict.fromkeys(
        ("errors", "types", "io", "schema", "config", "registry", "torchvision_compat"), 0
    ),
    **dict.fromkeys(("backbones", "data", "prompts", "memory", "windows"), 1),
    **dict.fromkeys(("method", "maps", "losses", "ensemble", "grounding", "knowledge"), 2),
    **dict.fromkeys(("metrics", "checkpoints", "features", "overlay"), 3),
    **dict.fromkeys(
        (
            "store",
            "examples",
            "calibration",
            "photos",
            "published",
            "protocols",
            "tables",
            "report",
        ),
        4,
    ),
    "training": 5,
    **dict.fromkeys(("runner", "api", "predictor", "predict_run", "doctor"), 6),
    **dict.fromkeys(("cli", "__main__"), 7),
}
# The registry lists what a data file of the backbones' room says.
ALLOWED = {("registry", "backbones")}


def python_files(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """All modules a file imports, wherever in it, except for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import")
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """``zsad.data.index.load`` -> ``data``; None outside the core."""
    parts = module.split(".")
    return parts[1] if parts[0] == "zsad" and len(parts) > 1 else None


def test_the_core_never_imports_a_method() -> None:
    for path in python_files("zsad"):
        for module in imports(path):
            assert not module.startswith(("zsad.methods.", "methods")), f"{path}: {module}"


def test_every_room_has_a_rank() -> None:
    rooms = {p.stem if p.is_file() else p.name for p in CORE.iterdir() if p.name[0].isalpha()}
    rooms -= {"py"}
    assert rooms - set(RANKS) == set(), "give the new room a rank in tests/test_house.py"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in python_files("zsad"):
        relative = path.relative_to(CORE)
        own = relative.parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            other = room(module)
            if other is None or other not in RANKS or (own, other) in ALLOWED:
                continue
            if RANKS[other] > RANKS[own]:
                wrong.append(f"{relative} imports {module}")
    assert wrong == []


def test_methods_import_no_run_time_rooms() -> None:
    for path in python_files("methods"):
        for module in imports(path):
            assert room(module) not in ("runner", "store", "metrics", "cli", "api", "tables"), (
                f"{path.relative_to(ROOT)} imports {module}"
            )


def test_no_drawer_and_no_shadowing_names() -> None:
    for path in python_files("zsad", "methods", "benchmarks"):
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
    for name in ("methods", "benchmarks", "prompts_cache"):
        assert not (CORE / name).exists()
        assert not (CORE / f"{name}.py").exists()


def test_files_stay_readable() -> None:
    found = {
        str(path.relative_to(ROOT)): count
        for path in python_files("zsad", "methods", "benchmarks")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert found == {}


def test_nobody_uses_the_tests_through_the_package() -> None:
    for path in python_files("zsad", "methods", "benchmarks"):
        for module in imports(path):
            assert not module.startswith(("zsad.tests", "tests")), f"{path}: {module}"


@pytest.mark.parametrize(
    "folder",
    sorted(p for p in (ROOT / "methods").iterdir() if p.is_dir() and not p.name.startswith("_")),
    ids=lambda p: p.name,
)
def test_every_method_folder_is_complete(folder: Path) -> None:
    for name in ("__init__.py", "config.py", "config.yaml", "method.py", "README.md"):
        assert (folder / name).is_file(), f"{folder.name}/{name} is missing"
    tests = ROOT / "tests" / "methods" / folder.name
    assert list(tests.glob("test_*.py")), f"no tests of {folder.name}"


def test_no_file_holds_a_placeholder() -> None:
    words = ("NotImplementedError", "TO" + "DO", "FIX" + "ME")
    for path in python_files("zsad", "methods", "benchmarks", "tests"):
        if path == Path(__file__).resolve() or path.name == "recipe.py":
            continue
        text = path.read_text(encoding="utf-8")
        for word in words:
            assert word not in text, f"{path.relative_to(ROOT)} holds {word}"


def test_torch_is_loaded_safely() -> None:
    for path in python_files("zsad", "methods"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert safe, f"{path.relative_to(ROOT)}, line {node.lineno}"
                assert ast.unparse(safe[0].value) == "True"


@pytest.mark.parametrize(
    ("library", "owners"),
    [("omegaconf", {"config.py"}), ("filelock", {"io.py"}), ("fcntl", set())],
)
def test_layers_and_locks_have_one_owner(library: str, owners: set[str]) -> None:
    users = {
        str(path.relative_to(CORE))
        for path in python_files("zsad")
        for module in imports(path)
        if module.split(".")[0] == library
    }
    assert users == owners


def test_import_zsad_is_light() -> None:
    code = (
        "import sys, zsad; zsad.list_methods(); "
        "heavy = {'torch', 'pandas', 'open_clip', 'lightning'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
