"""Pages as a notebook shows them, and as a table of pandas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from zsad.page import html_text
from zsad.tables.formats import html_table
from zsad.tables.model import Page

if TYPE_CHECKING:
    from pandas import DataFrame


class ShownPage(Page):
    """A page that a notebook shows."""

    def __repr__(self) -> str:
        return f"<page {self.name}: {', '.join(t.title for t in self.tables)}>"

    def _repr_html_(self) -> str:
        tables = "".join(f"<h4>{html_text(t.title)}</h4>{html_table(t)}" for t in self.tables)
        drawings = "".join(drawing.svg for drawing in self.drawings)
        notes = "".join(f"<li>{html_text(note)}</li>" for note in self.notes)
        return f"<h3>{html_text(self.title)}</h3>{tables}{drawings}<ul>{notes}</ul>"

    def frame(self) -> DataFrame:
        """The figures in long form, a row each, as the CSV file has them: metrics in percent, NaN
        where undefined.  ``mark``: what has to be said of the weights."""
        from pandas import DataFrame

        mark = {"mark": self.mark} if self.mark else {}
        rows = [
            {"page": self.name, "table": table.name, **mark, **entry}
            for table in self.tables
            for entry in table.data
        ]
        return DataFrame(rows)


class Pages(list[ShownPage]):
    """All pages of a results folder: a list that a notebook shows."""

    def __init__(self, pages: Iterable[Page] = ()) -> None:
        super().__init__(
            ShownPage(**{f.name: getattr(page, f.name) for f in fields(page)}) for page in pages
        )

    def _repr_html_(self) -> str:
        return "".join(page._repr_html_() for page in self)

    def frame(self) -> DataFrame:
        """The figures of all pages, one below the other; see :meth:`ShownPage.frame`."""
        from pandas import DataFrame, concat

        frames = [frame for page in self if len(frame := page.frame())]
        return concat(frames, ignore_index=True) if frames else DataFrame()
