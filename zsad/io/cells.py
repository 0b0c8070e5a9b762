"""Values as cells of a CSV file, which people open in spreadsheets."""

from __future__ import annotations

import re
from typing import Any

from zsad.errors import shown

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # the last four: of full width
_BLANKS = " '\"\u00a0\u202f\u3000"


def cell(value: Any) -> Any:
    """A value for a spreadsheet: a text that would be a formula there begins with a quote."""
    if not isinstance(value, str):
        return value
    text = shown(value)
    text = re.sub(r"(;\s*)(?=[=+\-@])", r"\1'", text)  # some take ; for the end of a cell
    return f"'{text}" if text.lstrip(_BLANKS).startswith(_FORMULA) else text
