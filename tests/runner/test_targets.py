"""Methods whose configuration follows the target: authors' scripts that differ by dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.miniatures import write_miniature
from zsad.results.store import ResultStore
from zsad.runner.plan import build_plan
from zsad.runner.request import build_request


def keys(root: Path, dataset: str, *overrides: str) -> list[str]:
    """The fingerprints of a sweep's cells."""
    asked = build_request(
        methods="anovl",
        datasets=dataset,
        data_root=root,
        backbone="zsad-tiny",
        results=root / "results",
        overrides=["anovl.preset=released", *overrides],
    )
    plan = build_plan(asked, ResultStore(asked.results), "weights", demo=True)
    assert not plan.unplanned
    return [key.fingerprint for key, _ in plan.cells()]


@pytest.mark.parametrize(("dataset", "own"), [("visa", "visa"), ("sdd", "mvtec")])
def test_a_cell_is_named_by_the_script_that_its_target_gets(
    tmp_path: Path, dataset: str, own: str
) -> None:
    write_miniature(dataset, tmp_path)
    other = "mvtec" if own == "visa" else "visa"
    found = keys(tmp_path, dataset)
    assert found == keys(tmp_path, dataset, f"anovl.script={own}")
    assert not set(found) & set(keys(tmp_path, dataset, f"anovl.script={other}"))
