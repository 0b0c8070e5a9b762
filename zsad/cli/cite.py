"""BibTeX for a method, a dataset or a protocol, of the one line that each says about its paper.

What the line does not say is not made up: authors that it shortens to "et al." are "and others".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# The line: authors, title, venue and year, and where there is one an arXiv number.
_LINE = re.compile(
    r"(?P<authors>[^,]+), (?P<title>.+), (?P<venue>[^,]*?)\s?(?P<year>(?:19|20)\d\d)"
    r"(?P<workshops> workshops)?(?:, arXiv (?P<arxiv>\S+))?"
)
_CONFERENCES = frozenset(
    [
        "AAAI",
        "ACM",
        "CVPR",
        "DAGM",
        "ECCV",
        "EU",
        "ICASSP",
        "ICCV",
        "ICLR",
        "ICML",
        "ICPR",
        "ICUMT",
        "ISBI",
        "ISIE",
        "MMM",
        "WACV",
    ]
)
_ESCAPED = re.compile(r"([&%#_$])")


def bibtex(name: str, title: str, cited: str, authors: Sequence[str] = ()) -> str:
    """One entry for each paper of ``cited``, which are separated by semicolons.

    ``name`` and ``title``: of what is cited; ``authors``: all of the first paper's, as
    "Family, Given", where they are known.
    """
    lines = [line.strip() for line in cited.split(";") if line.strip()]
    entries = [_entry(line, name, title, authors if i == 0 else ()) for i, line in enumerate(lines)]
    return "\n\n".join(entries)


def _entry(line: str, name: str, title: str, authors: Sequence[str]) -> str:
    found = _LINE.fullmatch(line)
    if found is None:
        return _written("misc", name, {"title": title, "note": line})
    names = " and ".join(authors) or _people(found["authors"])
    venue = found["venue"] + (found["workshops"] or "")
    fields = {"title": found["title"], "author": names}
    if venue.split(" ")[0] in _CONFERENCES:
        kind, place = "inproceedings", "booktitle"
    else:
        kind, place = ("article", "journal") if venue else ("misc", "howpublished")
    fields[place] = venue
    fields["year"] = found["year"]
    if found["arxiv"]:
        fields |= {"eprint": found["arxiv"], "archiveprefix": "arXiv"}
    return _written(kind, _key(found["authors"], found["year"], found["title"]), fields)


def _people(text: str) -> str:
    """ "Gu et al." as BibTeX has it, "Gu and others"."""
    return re.sub(r"\s+et al\.?$", " and others", text)


def _key(authors: str, year: str, title: str) -> str:
    """As search engines for papers make it: family name, year, first word."""
    words = re.findall(r"\w+", title.lower())
    long = next((w for w in words if len(w) > 3), words[0] if words else "")
    return re.sub(r"\W", "", authors.split(" ")[0].lower()) + year + long


def _written(kind: str, key: str, fields: dict[str, str]) -> str:
    body = "\n".join(
        f"  {name} = {{{_braced(value) if name == 'title' else _ESCAPED.sub(_slash, value)}}},"
        for name, value in fields.items()
        if value
    )
    return f"@{kind}{{{key},\n{body}\n}}"


def _slash(match: re.Match[str]) -> str:
    return "\\" + match[1]


def _braced(title: str) -> str:
    """A title whose capitals within a word (FiLo, CLIP) stay, whatever the style does."""
    words = _ESCAPED.sub(_slash, title).split(" ")
    return " ".join(f"{{{w}}}" if re.search(r"\w.*[A-Z]", w) else w for w in words)
