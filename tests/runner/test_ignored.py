"""``ignore:`` of a definition: out of maps, pixel figures and map-based scores, and said so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsad.cli.bench import print_summary
from zsad.tables import pages

Bench = Callable[..., dict[str, Any]]


def ignoring(definition: Path, ignore: str) -> None:
    text = definition.read_text()
    definition.write_text(text.replace("    title: as", f"    ignore: {ignore}\n    title: as"))


def by_cell(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["method"], c["category"]): c for c in document["cells"]}


@pytest.mark.parametrize("resize", ["bilinear", "native"])
def test_what_is_ignored_leaves_pixel_figures_and_scores_of_maps(
    resize: str, bench: Bench, definition: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The same pictures with another left half: with that ignored, only what reads the picture as
    a whole moves."""
    overrides = [f"data.mask_resize={resize}"]
    options: dict[str, Any] = {"methods": "clip,patchcore", "overrides": overrides}
    ignoring(definition, '"0,0,8,64"')
    first = bench(**options)
    assert first["failed"] == []
    masks = list((definition.parent / "things").glob("*/ground_truth/spot/*.png"))
    whole = {p: np.array(Image.open(p)) for p in masks}
    for path, mask in whole.items():  # marks among the ignored pixels change nothing
        mask[:8, :8] = 255
        Image.fromarray(mask).save(path)
    again = bench(**options, results=tmp_path / "again")
    for cell, found in by_cell(again).items():
        before = by_cell(first)[cell]
        assert found["metrics"]["pixel_auroc"] == pytest.approx(before["metrics"]["pixel_auroc"])
        assert found["metrics"]["pixel_ap"] == pytest.approx(before["metrics"]["pixel_ap"])
        assert (found["ignore"], before["ignore"]) == ("0,0,8,64", "0,0,8,64")
    # Both scores are taken before there is a map; CLIP's may be the map's peak instead.
    assert all(c["score_sees_ignored"] for c in by_cell(first).values())
    peak = bench(overrides=["clip.map_max=1.0", *overrides], results=tmp_path / "peak")
    assert not any(c["score_sees_ignored"] for c in by_cell(peak).values())
    print_summary(first)
    out = capsys.readouterr().out
    assert f"{definition.stem}: ignore 0,0,8,64: left out of maps and pixel figures; the" in out
    assert "clip" in out.rpartition("image scores of ")[2]
    overview = pages(tmp_path / "results")[0]
    assert any("ignore 0,0,8,64: left out" in note for note in overview.notes)


def test_without_it_cells_are_those_of_before(bench: Bench, definition: Path) -> None:
    plain = by_cell(bench())
    assert all("ignore" not in cell for cell in plain.values())
    ignoring(definition, '"0,0,8,8"')
    other = by_cell(bench())
    assert other.keys() == plain.keys()
    assert bench()["counters"].get("images", 0) == 0  # stored
