"""The pixels of images beside their scores: written, read, and absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsad.metrics.pixel_table import PixelTable
from zsad.results import pixels
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of

TABLE = PixelTable(
    np.array([[3, 1, 0], [2, 2, 9]]),
    np.array([[0, 0, 0], [1, 4, 0]]),
    np.array([[0.0, 0.0, 0.0], [0.2, 0.8, 0.0]]),
    np.array([0, 1]),
)
SCORES = {
    "uid": ["a", "b"],
    "label": [0, 1],
    "defect": ["", "x"],
    "score": [0.1, 0.2],
    "path": ["a", "b"],
}


def test_a_table_comes_back_with_its_cell(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    record = CellRecord("clip", "mine", "a", 0, "f", {"pixel_ap": 0.5}, {}, 1, 1, {}, {})
    store.put(record, {**SCORES, **pixels.columns(TABLE)})
    frame = store.scores(key_of(record))
    assert frame is not None
    found = pixels.of_frame(frame)
    assert found is not None
    for name in ("normal", "anomalous", "overlap", "regions"):
        np.testing.assert_allclose(getattr(found, name), getattr(TABLE, name))
    assert pixels.of_frame(frame.iloc[:1]) is not None  # of some of the images


def test_files_of_earlier_versions_and_broken_ones_have_none() -> None:
    assert pixels.columns(None) == {}
    assert pixels.of_frame(pd.DataFrame(SCORES)) is None
    whole = pd.DataFrame({**SCORES, **pixels.columns(TABLE)})
    for value in ([1, 2], None, "text", [[1], [2]]):
        broken = whole.copy()
        broken["pixels_normal"] = pd.Series([value, [1, 2, 3]], dtype=object)
        assert pixels.of_frame(broken) is None
    assert pixels.of_frame(whole.iloc[:0]) is None


@pytest.mark.parametrize("name", pixels.COLUMNS)
def test_a_missing_column_is_no_table(name: str) -> None:
    whole = pd.DataFrame({**SCORES, **pixels.columns(TABLE)})
    assert pixels.of_frame(whole.drop(columns=name)) is None
