"""The rules of the house, checked on the source itself."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "zsad"
LONGEST = 450  # lines

# From the ground up: a room imports only rooms of a lower rank, so that there is no circle.
RANKS: dict[str, int] = {
    room: rank
    for rank, rooms in enumerate(
        (
            ("lean_imports",),
            ("errors", "on_device", "torchvision_compat"),
            ("strict_json",),
            ("io", "metrics", "page", "runtime"),
            ("types", "config"),
            ("backbones", "maps", "method"),
            ("registry", "checkpoints", "components"),
            ("data", "protocols"),
            ("grounding", "prompt_bank", "results"),
            ("scoring", "training"),
            ("inference", "runner", "tables"),
            ("report", "deployment", "exchange", "certificate"),
            ("api", "doctor"),
            ("app",),
            ("cli",),
            ("__main__",),
        )
    )
    for room in rooms
}
# What may lie directly below zsad/: the rooms above and these files.
LOOSE = {"__init__.py", "__main__.py", "py.typed"}


def python_files(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """A file of the package, parsed once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """All modules a file imports, wherever in it, except for type checkers only."""
    return tuple(imported(path, tree_of(path)))


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
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


# ------------------------------------------------------------- the core names no method
METHODS = sorted(p.parent.name for p in (ROOT / "methods").glob("*/config.yaml"))
# Words that mean something else, too: CLIP is the architecture that everything rests on and part of
# the name of its libraries, and values and gradients are clipped.  Such a word counts only as a
# whole text, or as a module (`methods.clip`).
ORDINARY = {"clip"}
# Who first tested on a group of datasets is a citation ("the datasets of the FAPrompt paper").
CITATION = re.compile(r"\bthe \w+ paper\b")


def named_methods(text: str, identifier: bool = False) -> list[str]:
    """Methods that a text names as words, or that an identifier contains, whatever the case."""
    plain = text.lower() if identifier else CITATION.sub("", text).lower()
    found = []
    for name in METHODS:
        if name not in plain:
            continue
        word = rf"(?<![a-z0-9]){name}(?![a-z0-9])"
        if name in ORDINARY:
            hit = not identifier and (plain == name or re.search(rf"methods\.{word}", plain))
        else:
            hit = identifier or re.search(word, plain.replace("_", " "))
        if hit:
            found.append(name)
    return found


def words_of(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """(line, text, whether it is an identifier) of all texts but docstrings, and of all names."""
    told = {  # a text that stands alone as a statement is documentation
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in told:
                yield line, node.value, False
            continue
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield line, value, True
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            yield from ((line, name, True) for name in node.names)


def test_the_core_names_no_method() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {line}: {name}"
        for path in python_files("zsad")
        for line, text, identifier in words_of(tree_of(path))
        for name in named_methods(text, identifier)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ('KINDS = {"filo": 1}', ["filo"]),
        ("if kind == 'alfa': pass", ["alfa"]),
        ('print(f"zsad prompts generate --kind kanoclip {name}")', ["kanoclip"]),
        ("def _alfa_queries(name): return name", ["alfa"]),
        ("class FiLoRules: pass", ["filo"]),
        ("run(winclip=1)", ["winclip"]),
        ("import zsad.methods.musc.method", ["musc"]),
        ("from zsad.methods.coop import method", ["coop"]),
        ("m = 'zsad.methods.clip.method:Clip'", ["clip"]),
        ("default = 'clip'", ["clip"]),
        ('"A docstring may quote FiLo."\nX = 1\n"So may that of a constant: ALFA."', []),
        ("GROUP = 'the 19 datasets of the FAPrompt paper'", []),
        ("GROUP = 'as FAPrompt does'", ["faprompt"]),
        ("import open_clip\nx = torch.clip(x)\ny = 'a CLIP vision transformer'", []),
        ("note = 'cooperation, muscle and profile'", []),
    ],
)
def test_what_counts_as_naming_a_method(code: str, named: list[str]) -> None:
    found = [
        n for _, text, is_name in words_of(ast.parse(code)) for n in named_methods(text, is_name)
    ]
    assert sorted(set(found)) == named


def test_every_room_has_a_rank() -> None:
    found = {p.name.removesuffix(".py") for p in CORE.iterdir() if p.name not in LOOSE}
    found -= {"__pycache__"}
    assert found == set(RANKS) - {"__main__"}, "give a new room a rank; keep modules inside rooms"


# Packages that need no list of their modules: the rooms of zsad stand in docs/architecture.md, the
# verbs of the command line have a module each.
UNLISTED = {"zsad", "zsad/cli"}


@pytest.mark.parametrize(
    "package",
    [p.parent for p in sorted(CORE.rglob("__init__.py")) if len(list(p.parent.glob("*.py"))) > 5],
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_a_room_lists_its_modules(package: Path) -> None:
    """A newcomer finds a module by the docstring of its package, which names all, and no others."""
    modules = {p.stem for p in package.glob("*.py")} - {"__init__", "__main__"}
    modules |= {p.parent.name for p in package.glob("*/__init__.py")}
    text = ast.get_docstring(tree_of(package / "__init__.py")) or ""
    if package.relative_to(ROOT).as_posix() not in UNLISTED:
        assert sorted(modules - set(re.findall(r"\w+", text))) == []
    rows = set(re.findall(r"^``(\w+)``  ", text, re.M))
    assert sorted(rows - modules) == []


def test_imports_point_one_way() -> None:
    wrong = []
    for path in python_files("zsad"):
        relative = path.relative_to(CORE)
        own = relative.parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            other = room(module)
            if other is None or other not in RANKS or other == own:
                continue
            if RANKS[other] >= RANKS[own]:
                wrong.append(f"{relative} imports {module}")
    assert wrong == []


def test_modules_import_each_other_in_no_circle() -> None:
    modules = {dotted(path): path for path in python_files("zsad")}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for imported in imports(path):
            while imported and imported not in modules:  # a name inside of a module
                imported = imported.rpartition(".")[0]
            if imported not in ("", "zsad", name):
                graph[name].add(imported)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def dotted(path: Path) -> str:
    """``zsad/data/__init__.py`` -> ``zsad.data``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


# What a method is made of; whoever runs methods, stores or shows results is not among it.
FOR_METHODS = {
    *("errors", "torchvision_compat", "types", "config", "backbones", "maps", "method"),
    *("components", "data", "on_device", "prompt_bank", "methods"),
    "runtime",  # rules that a method shares with its packages
}


def test_methods_import_what_methods_are_made_of() -> None:
    for path in python_files("methods"):
        for module in imports(path):
            assert room(module) in (None, *FOR_METHODS), f"{path.relative_to(ROOT)}: {module}"


def parents(method: str) -> set[str]:
    """Methods whose class the class of ``method`` extends; the class of each, by its import."""
    tree = tree_of(ROOT / "methods" / method / "method.py")
    bases = {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        for word in names_in(base.value if isinstance(base, ast.Subscript) else base)
    }
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zsad.methods.")
        for alias in node.names
        if alias.name in bases and (node.module or "").split(".")[2] != method
    }


def test_methods_import_one_another_only_to_extend() -> None:
    """What two methods share lies in zsad.components; a method that *is* another one plus a line
    takes that one's class, and its config class with it."""
    known = {p.parent.name for p in (ROOT / "methods").glob("*/method.py")}
    assert parents("maskclip") == {"zsad.methods.clip.method.Clip"}
    assert parents("cocoop") == {"zsad.methods.coop.method.CoOp"}
    for method in sorted(known):
        allowed = parents(method)
        allowed |= {f"zsad.methods.{name.split('.')[2]}.config.Config" for name in allowed}
        for path in sorted((ROOT / "methods" / method).rglob("*.py")):
            for module in imports(path):
                other = module.split(".")[2] if module.startswith("zsad.methods.") else method
                assert other == method or module in allowed, (
                    f"{path.relative_to(ROOT)} imports {module}; move what both use to "
                    f"zsad/components"
                )


def test_json_of_others_is_read_in_one_place() -> None:
    """Elsewhere ``json.loads`` is given what was written a moment ago."""
    own = {"json.dumps", "dump_json"}
    for path in python_files("zsad", "methods"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.load", "json.loads"):
                given = node.args[0]
                ours = isinstance(given, ast.Call) and ast.unparse(given.func) in own
                allowed = ours or path == CORE / "strict_json.py"
                assert allowed, f"{path.relative_to(ROOT)}, line {node.lineno}: use parse_json"


def test_differences_have_one_format() -> None:
    """Python writes -0.0 for what rounds to nothing; :func:`zsad.tables.model.signed` does not."""
    owner = CORE / "tables" / "model.py"
    for path in python_files("zsad", "methods", "benchmarks"):
        own = re.findall(r"\{[^{}]+:\+[.\d{}a-z]*f\}", path.read_text(encoding="utf-8"))
        assert bool(own) == (path == owner), f"{path}: {own}; use signed()"


def test_no_drawer_and_no_shadowing_names() -> None:
    for path in python_files("zsad", "methods", "benchmarks"):
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
    for name in ("methods", "benchmarks", "prompts_cache"):
        assert not (CORE / name).exists()
        assert not (CORE / f"{name}.py").exists()


def test_only_the_list_of_metrics_spells_their_names() -> None:
    """In identifiers, strings and the report's scripts, not in docstrings."""
    from zsad.metrics.spec import METRICS

    wrong = []
    for path in [*python_files("zsad"), *sorted((CORE / "report" / "assets").iterdir())]:
        if path == CORE / "metrics" / "spec.py":
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            text = "\n".join(words(tree_of(path)))
        found = METRICS.keys() & set(re.findall(r"\w+", text))
        wrong += [f"{path.relative_to(ROOT)} spells {name}" for name in sorted(found)]
    assert wrong == []


def words(tree: ast.Module) -> Iterator[str]:
    """Identifiers and strings of a module, docstrings apart."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
        for name in ("id", "attr", "arg", "name"):
            if isinstance(found := getattr(node, name, None), str):
                yield found


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


def test_nobody_guesses_what_a_config_has() -> None:
    """What the framework asks of a config is written down in MethodConfig."""
    for path in python_files("zsad"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                words = {w for n in ast.walk(node.args[0]) for w in names_in(n)}
                asked = f"{path.relative_to(ROOT)}, line {node.lineno}: {ast.unparse(node)}"
                assert "config" not in words, asked


def names_in(node: ast.AST) -> list[str]:
    """The name that a node of an expression spells, if it spells one."""
    if isinstance(node, ast.Name):
        return [node.id]
    return [node.attr] if isinstance(node, ast.Attribute) else []


def loose_texts(tree: ast.Module) -> Iterator[int]:
    """Lines of strings that are statements, and neither a docstring nor the text below a name."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            before: ast.stmt | None = None
            body = getattr(node, field, ())  # a lambda's is an expression
            for number, statement in enumerate(body if isinstance(body, list) else ()):
                is_text = isinstance(statement, ast.Expr) and (
                    isinstance(statement.value, ast.JoinedStr)
                    or isinstance(getattr(statement.value, "value", None), str)
                )
                is_doc = number == 0 and field == "body" and isinstance(node, documented)
                names = isinstance(node, (ast.Module, ast.ClassDef))
                is_below = names and isinstance(before, (ast.Assign, ast.AnnAssign))
                if is_text and not is_doc and not is_below:
                    yield statement.lineno
                before = statement


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("def f():\n    'Said.'\n    return 1", []),
        ("LIMIT = 3\n'Pixels.'", []),
        ("if x:\n    say(f'the one half, '\n        'the other')", []),
        ("def f(x):\n    if x:\n        say(x)\n        f'the rest'", [4]),
        ("def f(x):\n    text = f'half {x}; the '\n    'rest'\n    say(text)", [3]),
        ("try:\n    f()\nexcept ValueError:\n    'lost'", [4]),
    ],
)
def test_what_counts_as_a_loose_text(code: str, lines: list[int]) -> None:
    assert list(loose_texts(ast.parse(code))) == lines


def test_no_half_of_a_message_is_left_behind() -> None:
    """Two strings on two lines are one only within brackets."""
    for path in python_files("zsad", "methods", "benchmarks", "tests"):
        for line in loose_texts(tree_of(path)):
            raise AssertionError(f"{path.relative_to(ROOT)}, line {line}: a text that nobody reads")


def test_every_method_says_its_revision() -> None:
    for path in sorted((ROOT / "methods").glob("*/config.yaml")):
        assert "\nrevision: " in path.read_text(encoding="utf-8"), f"{path}: add `revision: 1`"


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
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only"]
                assert safe, f"{path.relative_to(ROOT)}, line {node.lineno}"
                assert ast.unparse(safe[0].value) == "True"


@pytest.mark.parametrize(
    ("library", "owners"),
    [("omegaconf", {"config/__init__.py"}), ("filelock", {"io/__init__.py"}), ("fcntl", set())],
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
        "import sys, zsad; from zsad.prompt_bank.kinds import kinds; zsad.list_methods(); kinds(); "
        "heavy = {'torch', 'pandas', 'open_clip', 'lightning'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_libraries_that_import_torchvision_come_from_one_place() -> None:
    """They fail beside a torch that torchvision was not built for, unless that place mends it."""
    wrapped = ("lightning", "open_clip", "timm", "torchmetrics", "transformers")
    for path in python_files("zsad", "methods", "benchmarks"):
        if path in (CORE / "torchvision_compat.py", CORE / "lean_imports.py"):
            continue
        text = path.read_text(encoding="utf-8")
        assert "# ruff: noqa" not in text, path
        for module in imports(path):
            assert module.split(".")[0] not in wrapped, f"{path}: {module}"


# "x is no number" is German word order; "there is no x" and "no longer" are English.
GERMAN = re.compile(r"(?<!there )\b(?:is|are) no (?!longer\b|more\b|less\b|\w+er than\b)\w+", re.I)


def test_messages_and_docstrings_are_plain_english() -> None:
    wrong = []
    for path in python_files("zsad", "methods", "benchmarks"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = " ".join(node.value.split())
                wrong += [
                    f"{path.relative_to(ROOT)}, line {node.lineno}: '{found}'; write 'is not a ...'"
                    for found in GERMAN.findall(text)
                ]
    assert wrong == []


# What tests reach for inside of modules, since no public way leads there: to make a fault happen
# at one place, or to compare a step that is not public with an independent reference.
PRIVATE = {
    "captions._shrunk",
    "feature_store._Records",
    "images._open",
    "loader._attempt",
    "registry._read_entry",
    "statistics._of_scores",
    "PixelHistogram._take",
}


def private_uses(path: Path) -> Iterator[str]:
    """``module._name`` of zsad that a test file reads, imports or replaces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zsad":
            ours |= {alias.asname or alias.name for alias in node.names}
            for alias in node.names:
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    yield f"{(node.module or '').rpartition('.')[2]}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ours:
            owner, name = ast.unparse(node.value), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            owner, name = (ast.unparse(a).strip("'") for a in [*node.args, node, node][:2])
            if owner not in ours:
                continue
        else:
            continue
        if name.startswith("_") and not name.startswith("__"):
            yield f"{owner}.{name}"


def test_tests_use_what_is_public() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in python_files("tests")
        for name in private_uses(path)
        if name not in PRIVATE
    }
    assert wrong == set()
