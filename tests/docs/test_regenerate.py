"""What `make readme` writes is what the stored results say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs import regenerate
from tests.report.conftest import put
from zsad.results.store import ResultStore
from zsad.tables.results_matrix import Board, boards


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """Two methods on two categories."""
    store = ResultStore(tmp_path)
    for method, value in (("clip", 0.5), ("winclip", 0.75)):
        for category in ("wood", "tile"):
            put(store, method, category, value, image_size=224, limit=64)
    return store


def board_of(store: ResultStore) -> Board:
    return next(iter(boards(store.cells())))


def test_the_table_holds_the_means_and_their_conditions(store: ResultStore) -> None:
    lines = regenerate.table(board_of(store)).splitlines()
    assert lines[0] == "| dataset (categories) | figure | CLIP | WINCLIP |"
    assert "| folder (2) | image AUROC | 50.0 | 75.0 |" in lines
    assert "| folder (2) | image AP | 70.0 | 70.0 |" in lines
    assert not any("pixel" in line for line in lines[2:-1])  # not defined
    assert lines[-1] == ("Percent; `zsad-tiny` at 224 pixels, 10 images (at most 64 per category).")


def test_only_the_marked_part_of_readme_changes() -> None:
    begin, end = regenerate.BEGIN, regenerate.END
    text = f"before\n{begin}\nold | 1.0 |\n{end}\nafter\n"
    assert regenerate.replaced(text, r"new \1") == f"before\n{begin}\nnew \\1\n{end}\nafter\n"
    with pytest.raises(ValueError, match="README"):
        regenerate.replaced("no marks", "new")


def test_readme_has_the_marks() -> None:
    text = (regenerate.DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert regenerate.BEGIN in text
    assert regenerate.END in text


def test_heat_maps_lie_below_their_pictures(store: ResultStore) -> None:
    for i, category in enumerate(("wood", "tile")):
        put(store, regenerate.METHOD, category, 0.5)
        path = store.root / "cells" / regenerate.METHOD / "folder" / "0" / f"{category}.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace('"pixel_aupro": null', f'"pixel_aupro": 0.{i + 1}'), encoding="utf-8"
        )
    sheet = regenerate.heat_maps(store, board_of(store))
    side, gap = regenerate.SIDE, regenerate.GAP
    assert sheet.size == (2 * side + gap, 2 * side + gap)
    assert [r.category for r in regenerate.best_categories(board_of(store))] == ["tile", "wood"]
    pixels = np.asarray(sheet, dtype=int)
    scale = side / 224
    inside = pixels[side + gap + int(60 * scale), int(80 * scale)]
    outside = pixels[side + gap + int(160 * scale), int(20 * scale)]
    # The defect is hot: yellow; where nothing stands out the picture itself is seen, grey.
    assert inside[0] > inside[2] + 60
    assert np.ptp(outside) < 30
