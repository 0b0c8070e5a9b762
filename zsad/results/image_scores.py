"""The scores of a record's images, checked to be of these images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zsad.errors import DataError
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of

if TYPE_CHECKING:
    import pandas as pd


def scores_of(store: ResultStore, record: CellRecord) -> pd.DataFrame | None:
    """Return the image scores of a stored record, None where it has none.

    Raises :class:`DataError` as :meth:`ResultStore.scores` does, and for the scores of other images
    than the record counts: a file that was copied there or changed by hand.
    """
    frame = store.scores(key_of(record))
    if frame is None or frame.empty:  # nothing was scored: there was nothing to refer to
        return frame
    labels = [int((frame["label"] == label).sum()) for label in (0, 1)]
    if labels != [record.n_normal, record.n_anomalous]:
        raise DataError(
            f"the image scores of {record.method} on {record.dataset}/{record.category}, seed "
            f"{record.seed}, are of other images than its record; run the cell again"
        )
    return frame
