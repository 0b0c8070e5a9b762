"""Every bound stands in the documentation, with the variable that raises it."""

from __future__ import annotations

from pathlib import Path

from zsad.io.bounds import BOUNDS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")


def test_every_bound_is_documented() -> None:
    for bound in BOUNDS:
        assert f"`{bound.variable}`" in TEXT
        assert bound.value() == bound.default
