"""What `make pictures` draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs import pictures
from zsad.data.index import load_index


def test_pictures_stand_in_a_row_under_their_headings() -> None:
    tiles = [(name, Image.new("RGB", (50, 50), name)) for name in ("red", "blue")]
    row = np.asarray(pictures.strip(tiles))
    side, line, gap = pictures.SIDE, pictures.LINE, pictures.GAP
    assert row.shape == (side + line, 2 * side + gap, 3)
    assert (row[line:, :side] == (255, 0, 0)).all()
    assert (row[line:, side + gap :] == (0, 0, 255)).all()
    assert (row[:line] != 255).any()  # headings
    assert (row[line:, side : side + gap] == 255).all()


def test_files_are_named_by_what_is_drawn_into_them(tmp_path: Path) -> None:
    category, defect = pictures.DEFECT
    samples = [s for s in load_index("synthetic").samples if s.category == category]
    chosen = [
        next(s for s in samples if s.defect == defect),
        next(s for s in samples if not s.label),
    ]
    folder = pictures.saved(chosen, tmp_path / "photos")
    assert sorted(p.name for p in folder.iterdir()) == [f"00_{defect}.png", "01_good.png"]


def test_the_page_and_the_app_show_pictures_beside_normal_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PICTURES", 4)
    shown, good = pictures.shown_and_good(load_index("synthetic"), tmp_path)
    assert len(list(shown.iterdir())) == 4
    assert {p.stem.split("_", 1)[1] == "good" for p in shown.iterdir()} == {True, False}
    assert sorted(p.name for p in good.iterdir()) == [f"{i:02}_good.png" for i in range(4)]


def test_a_method_without_its_boxes_is_called_that() -> None:
    assert pictures.heading(pictures.loaded("filo"), "leather") == "FiLo (no boxes)"


def test_the_pictures_of_readme_are_small() -> None:
    for name in ("side_by_side.jpg", "prediction_page.jpg", "app.jpg"):
        assert (pictures.DOCS / name).stat().st_size < 150_000
