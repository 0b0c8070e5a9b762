"""The page about robustness names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "robustness.md"


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "::" in line]
    assert len(rows) > 30
    for row in rows:
        (named,) = re.findall(r"`(\S+\.py)::(\w+)`", row)
        source = (ROOT / "tests" / named[0]).read_text(encoding="utf-8")
        functions = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
        assert named[1] in functions, row
