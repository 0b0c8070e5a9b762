"""What docstrings say of a dataclass is true: the fields that they describe exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# ``name``: ...   ``name`` [B, L]: ...   ``one``, ``two`` and ``three``: ...
NAME = r"``[A-Za-z_][\w.]*``"
DESCRIBED = re.compile(rf"({NAME}(?:(?:,|,? and|,? or)\s+{NAME})*)(?:\s+\[[^\]]*\])?\s*(?::| =\s)")


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    for folder in ("zsad", "methods", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield path, node


def own_names(node: ast.ClassDef) -> set[str]:
    """Fields, properties, methods, and the values that a field can have or has by default."""
    names: set[str] = set()
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            names.add(ast.unparse(item.target))
            texts = [n.value for n in ast.walk(item) if isinstance(n, ast.Constant)]
            names |= {t for t in texts if isinstance(t, str)}
        elif isinstance(item, ast.Assign):
            names |= {ast.unparse(target) for target in item.targets}
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(item.name)
    return names


def false_names(node: ast.ClassDef, bases: dict[str, list[ast.ClassDef]]) -> set[str]:
    """The names that the docstring of a dataclass describes and the class does not have."""
    known = own_names(node)
    for base in node.bases:  # by their bare name: classes of one name are all taken
        name = ast.unparse(base).split("[")[0].rpartition(".")[2]
        known = known.union(*(own_names(c) for c in bases.get(name, [])))
    described = {
        name
        for group in DESCRIBED.findall(ast.get_docstring(node) or "")
        for name in re.findall(r"``([A-Za-z_]\w*)``", group)  # no dotted ones: they are others'
    }
    return described - known


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def test_docstrings_of_dataclasses_describe_fields_that_exist() -> None:
    found = list(classes())
    bases: dict[str, list[ast.ClassDef]] = {}
    for _, node in found:
        bases.setdefault(node.name, []).append(node)
    wrong = [
        f"{path.relative_to(ROOT)}, line {node.lineno}: {node.name} has no {name}"
        for path, node in found
        if is_dataclass(node)
        for name in sorted(false_names(node, bases))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("docstring", "false"),
    [
        ("``image``: the picture.", set()),
        ("``image`` uint8 [n, n, 3]; ``mask``: where it is.", set()),
        ("``image``, ``mask``: both.", set()),
        ("``facts``: what a caption says.", {"facts"}),
        ("``image`` and ``facts``: both.", {"facts"}),
        ("``facts`` [B, 2]: both.", {"facts"}),
        ("``kind``: ``broken`` = in parts, or ``whole``.", set()),
        ("``kind``: ``intact`` = in one part.", {"intact"}),
        ("Not a field: the ``label`` of another class.", set()),
    ],
)
def test_the_check_sees_what_it_should(docstring: str, false: set[str]) -> None:
    source = f'''
class Picture(Base):
    """{docstring}"""
    image: bytes
    kind: Literal["broken", "whole"] = "whole"
'''
    base = ast.parse("class Base:\n    mask: bytes")
    (node,) = ast.parse(source).body
    (parent,) = base.body
    assert isinstance(node, ast.ClassDef)
    assert isinstance(parent, ast.ClassDef)
    assert false_names(node, {"Base": [parent]}) == false
