"""BibTeX of a paper out of the line that names it: ``Gu et al., TITLE, ACM MM 2024``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zsad import __version__

YEAR = re.compile(r"\b(?:19|20)\d\d\b")


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
    first, *parts = line.split(", ")
    # The venue is in the last part with a year; there is a title before it.
    for i in range(len(parts) - 1, 0, -1):
        if found := YEAR.search(parts[i]):
            break
    else:
        return _written(name, {"title": f"{{{name}}}", "note": line})
    short = first.removesuffix(".")
    if short.endswith(" et al"):
        first = f"{short.removesuffix(' et al').rstrip()} and others"
    fields = {"author": " and ".join(known) or first, "title": f"{{{', '.join(parts[:i])}}}"}
    venue, more = parts[i][: found.start()].rstrip(), parts[i][found.end() :]
    if where := f"{venue}{', '.join([more, *parts[i + 1 :]])}".strip(" ,"):
        fields["howpublished"] = where
    return _written(f"{name}{found[0]}", {**fields, "year": found[0]})


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
