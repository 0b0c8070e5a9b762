"""Which pictures ``zsad predict`` wrote itself: they are not input when a folder is read again.  No
torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from zsad import __version__
from zsad.errors import ZsadError
from zsad.io import read_json

SOFTWARE = "zsad"
NAME = re.compile(r"(?P<base>.+)\.((heat|thumb|layer|prompts)\.webp|heat\.png|mask\.png)")
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags


def is_own_output(path: Path | str) -> bool:
    """Whether a file is a heat map, a mask, a strip of maps or a small picture of ``zsad predict``.

    It has the name of one, and either says so itself or lies beside the record of its picture
    (those of earlier versions say nothing).
    """
    path = Path(path)
    match = NAME.fullmatch(path.name)
    if match is None:
        return False
    record = path.with_name(f"{match['base']}.json")
    return _says_so(path) or _is_record(record)


def _says_so(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            software = image.info.get("Software") or image.getexif().get(_SOFTWARE, "")
    except Exception:  # each decoder raises types of its own; what cannot be read is not ours
        return False
    return str(software).startswith(SOFTWARE)


def _is_record(path: Path) -> bool:
    try:
        content = read_json(path)
    except ZsadError:  # absent, damaged, of another kind
        return False
    return isinstance(content, dict) and {"image_score", "files"} <= set(content)


# ------------------------------------------------------------------------------- the marks
def exif(made_by: Mapping[str, Any]) -> bytes:
    """EXIF data that names zsad, and what made the picture as JSON in its description."""
    tags = Image.Exif()
    tags[_SOFTWARE] = f"{SOFTWARE} {__version__}"
    tags[_DESCRIPTION] = _json(made_by)
    return tags.tobytes()


def png_text(made_by: Mapping[str, Any]) -> PngInfo:
    """The same as text of a PNG file."""
    text = PngInfo()
    text.add_text("Software", f"{SOFTWARE} {__version__}")
    text.add_text("Description", _json(made_by))
    return text


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)  # ASCII, which is all that EXIF holds
