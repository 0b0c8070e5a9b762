"""BibTeX of a paper out of the line that names it: ``Gu et al., TITLE, ACM MM 2024``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zsad import __version__

LINE = re.compile(
    r"(?P<authors>.+?), (?P<title>.+), (?P<venue>[^,]*?)\s*\b(?P<year>(?:19|20)\d\d)\b(?P<more>.*)"
)


def bibtex(name: str, lines: str, authors: Sequence[str] = ()) -> list[str]:
    """The entries of one or several lines (parted by ``;``) under keys made of ``name``.

    Authors are as a line has them ("Gu and others"), and so is the venue, whose kind the line does
    not say.  A line of another form becomes the note of an entry.  ``authors``: all of the first
    line's paper, as "Family, Given", where they are known.
    """
    parts = [part.strip().rstrip(".") for part in lines.split(";")]
    return [
        _entry(name + "abcdefgh"[i : i + 1] * (i > 0), part, () if i else authors)
        for i, part in enumerate(parts)
    ]


def _entry(name: str, line: str, known: Sequence[str]) -> str:
    found = LINE.fullmatch(line)
    if found is None:
        return _written(name, {"title": f"{{{name}}}", "note": line})
    authors = " and ".join(known) or re.sub(r"\s+et al\.?$", " and others", found["authors"])
    fields = {"author": authors, "title": f"{{{found['title']}}}"}
    if where := f"{found['venue']}{found['more']}".strip(" ,"):
        fields["howpublished"] = where
    return _written(f"{name}{found['year']}", {**fields, "year": found["year"]})


def _written(key: str, fields: dict[str, str]) -> str:
    """One BibTeX entry; what BibTeX would read as a command is written out."""
    body = "".join(f"  {name} = {{{_plain(value)}}},\n" for name, value in fields.items())
    return f"@misc{{{re.sub('[^A-Za-z0-9_-]', '', key)},\n{body}}}"


def own() -> str:
    """The entry of zsad itself."""
    title = "{zsad}: zero-shot image anomaly detection"
    return _written(
        "zsad",
        {"author": "{The zsad developers}", "title": title, "note": f"version {__version__}"},
    )


def _plain(text: str) -> str:
    return re.sub(r"(?<!\\)([&%$#_])", r"\\\1", text)
