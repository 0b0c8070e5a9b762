"""The pixels of every image beside its score: counts over common bins, in the same file.

A cell's file of image scores has four more columns where its pixel metrics are defined
(:class:`zsad.metrics.pixel_table.PixelTable`, a list of counts per image).  Records of earlier
versions have none: what is made of them says "not computed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from zsad.metrics.pixel_table import PixelTable

COLUMNS = ("pixels_normal", "pixels_anomalous", "region_overlap", "regions")


def columns(table: PixelTable | None) -> dict[str, list[Any]]:
    """The columns of a table, one entry per image; none for no table."""
    if table is None:
        return {}
    lists = (table.normal, table.anomalous, table.overlap.astype(np.float32))
    found: dict[str, list[Any]] = {name: list(part) for name, part in zip(COLUMNS, lists)}
    found["regions"] = table.regions.tolist()
    return found


def of_frame(frame: pd.DataFrame) -> PixelTable | None:
    """The table of a cell's image scores, in their order; None where the file holds none, or none
    that is whole."""
    if not set(COLUMNS) <= set(frame.columns) or not len(frame):
        return None
    from zsad.metrics.pixel_table import PixelTable

    try:
        normal, anomalous, overlap = (np.stack(frame[name].to_list()) for name in COLUMNS[:3])
        regions = frame["regions"].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):  # somebody wrote lists of other lengths
        return None
    if not normal.shape == anomalous.shape == overlap.shape or normal.ndim != 2:
        return None
    return PixelTable(normal, anomalous, overlap.astype(np.float64), regions)
