"""Footnotes on pixels that are not looked at."""

from __future__ import annotations

from zsad.tables.results_matrix import Board


def ignored_notes(board: Board) -> list[str]:
    """What was not looked at of each dataset, and which columns' image scores see it anyway."""
    titles = {c.label: c.title for c in board.columns}
    seeing: dict[tuple[str, str], dict[str, None]] = {}
    for (label, _), cells in board.cells.items():
        for record in cells.values() if label in titles else ():
            if text := record.info.get("ignore"):
                found = seeing.setdefault((record.dataset, text), {})
                if record.info.get("score_sees_ignored"):
                    found[titles[label]] = None
    return [
        f"{dataset}: ignore {text}: left out of maps and pixel figures"
        + (f"; the image scores of {', '.join(columns)} still see it." if columns else ".")
        for (dataset, text), columns in seeing.items()
    ]
