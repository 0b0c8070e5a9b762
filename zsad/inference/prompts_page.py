"""What the single prompts of a method find: a strip of heat maps for each picture, and a page.

``x.prompts.webp``: the picture, and its map under each abnormal prompt alone, all in one scale of
colours.  ``prompts.html``: the strips, and two views in two dimensions, each the plane in which its
points vary most (:mod:`zsad.components.projection`): the maps of all pictures by prompt, and the
prompts with the pictures, before and after a method has chosen among them.
"""

from __future__ import annotations

import colorsys
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zsad import registry
from zsad.components.projection import Plane, plane
from zsad.data import own_outputs
from zsad.data.images import read_image
from zsad.data.indexers.words import kind_of
from zsad.errors import counted
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction
from zsad.page import asset, filled, html_text
from zsad.page.scatter import Marks, Shape, scatter
from zsad.results import heatmaps
from zsad.types import PromptView

PAGE = "prompts.html"
ENDING = "prompts.webp"
SIDE = 208  # pixels of one map in a strip
COLUMNS = 6  # of a strip
LETTERS, LINE = 14, 18  # pixels
MOST = 200  # pictures that the views are made of
NUMBERED = 20  # prompts that have a colour and a number of their own
NORMAL, ABNORMAL, PICTURE, DROPPED = "#2f6fe0", "#d0600a", "#0f8a4b", "#888888"
TSNE = (
    "These are principal components, which keep distances as far as two dimensions can; t-SNE, "
    "which papers also draw, places points by their neighbours alone."
)

Write = Callable[[Path, bytes], str]


@dataclass(frozen=True)
class _Seen:
    """One picture of the page."""

    name: str
    strip: str  # address of its strip of maps, "" for none
    group: str  # what its folder says: "normal", "anomalous" or ""
    view: PromptView


@dataclass
class PromptsPage:
    """Collects what prompts say of each picture; :meth:`close` writes the page.

    ``write``: writes a file below ``out``; ``bits``: as
    :class:`zsad.inference.pictures.Reading` has it.
    """

    out: Path
    write: Write
    bits: int = 0
    _seen: list[_Seen] = field(default_factory=list)
    _count: int = 0
    _made_by: Mapping[str, Any] = field(default_factory=dict)

    def put(self, found: Prediction, photo: Photo) -> str | None:
        """Take one picture in and write its strip of maps; its path, None where prompts have no
        maps."""
        view = found.prompts
        if view is None:  # a picture with an error
            return None
        self._made_by = self._made_by or found.made_by
        path = None
        base = self.out / photo.stem
        file = base.with_name(f"{base.name}.{ENDING}")
        if view.maps is not None:
            image = read_image(photo.path, bits=self.bits)
            buffer = io.BytesIO()
            made = strip(image, view, str(found.made_by.get("mark", "")))
            made.save(buffer, "WEBP", quality=80, exif=own_outputs.exif(found.made_by))
            path = self.write(file, buffer.getvalue())
        self._count += 1
        if len(self._seen) < MOST:
            address = quote(file.relative_to(self.out).as_posix()) if path else ""
            self._seen.append(_Seen(str(found.path), address, _group(found), view))
        return path

    def close(self) -> str | None:
        """Write ``prompts.html``; None where there was no picture."""
        if not self._seen:
            return None
        return self.write(self.out / PAGE, self.document().encode())

    def document(self) -> str:
        """The page about the pictures so far."""
        first = self._seen[0].view
        ordinary, abnormal = int((~first.abnormal).sum()), int(first.abnormal.sum())
        made = self._made_by
        name = str(made.get("method", ""))
        entry = registry.methods().get(name)
        title = f"Prompts of {entry.title if entry else name} for '{made.get('class_name', '')}'"
        lead = (
            f"{counted(ordinary, 'normal prompt')} and {counted(abnormal, 'abnormal prompt')} on "
            f"{counted(self._count, 'picture')}."
        )
        if self._count > len(self._seen):
            lead += f" The views and the list hold the first {len(self._seen)}."
        how = (
            "The picture, and what each abnormal prompt alone finds in it: the method's map with "
            "that prompt in place of all. One scale of colours for all maps of a picture."
            if first.maps is not None
            else "The method makes no map of a single prompt."
        )
        space, shown = _space(self._seen)
        views = [_map_view(self._seen)] if first.maps is not None else []
        parts = {
            "TITLE": html_text(title),
            "STYLE": asset("prompts.css"),
            "LEAD": html_text(lead),
            "MARK": html_text(made.get("mark", "")),
            "VIEWS": "".join([*views, space]),
            "HOW": html_text(how),
            "WIDE": "wide" if first.maps is not None else "",
            "PICTURES": "".join(map(_picture, self._seen, shown)),
        }
        return filled(asset("prompts.html"), parts)


# -------------------------------------------------------------------------------- pictures
def strip(image: Image.Image, view: PromptView, mark: str = "") -> Image.Image:
    """The picture, and under each abnormal prompt's map; numbered in their order, in rows.

    ``mark``: what has to be said wherever the result is shown; it stands below.
    """
    assert view.maps is not None
    maps = view.maps.numpy()
    low, high = heatmaps.span(maps)
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    tiles = [small, *(heatmaps.overlay(small, one, low, high, side=SIDE) for one in maps)]
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = textwrap.wrap(mark, columns * width // (LETTERS // 2 + 1))
    whole = Image.new("RGB", (columns * width, rows * height + len(lines) * LINE), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(LETTERS)
    for i, tile in enumerate(tiles):
        left, top = i % columns * width, i // columns * height
        whole.paste(tile, (left, top))
        number = f"{i}" if i else ""
        pen.text((left + 4, top + 2), number, "white", font, stroke_width=2, stroke_fill="black")
    for i, line in enumerate(lines):
        pen.text((4, rows * height + i * LINE), line, "black", font)
    return whole


def _group(found: Prediction) -> str:
    """What the folder of a picture says of it; "" where it says nothing."""
    kind = kind_of(Path(str(found.path)).parent.name)
    return kind if kind in ("normal", "anomalous") else ""


def _picture(seen: _Seen, chosen: str) -> str:
    image = f'<img src="{seen.strip}" alt="maps by prompt">' if seen.strip else ""
    image = f'<a href="{seen.strip}">{image}</a>' if image else ""
    if not image and not chosen:
        return ""
    group = f" ({seen.group} by its folder)" if seen.group else ""
    name = f"<h3>{html_text(seen.name)}{group}</h3>"
    return f"<section>{name}{image}{chosen}</section>\n"


# ----------------------------------------------------------------------------------- views
def _map_view(seen: Sequence[_Seen]) -> str:
    """The maps of all pictures, one point per picture and prompt."""
    maps = np.stack([s.view.maps.flatten(1).numpy() for s in seen if s.view.maps is not None])
    count = maps.shape[1]  # [N, A, L]
    fitted = plane(maps.reshape(-1, maps.shape[2]))
    marks = []
    for prompt, colour in enumerate(colours(count)):
        placed = fitted.of(maps[:, prompt])
        for group in dict.fromkeys(s.group for s in seen):
            rows = [i for i, s in enumerate(seen) if s.group == group]
            titles = [f"{seen[i].name}, prompt {prompt + 1}" for i in rows]
            marks.append(Marks(placed[rows], colour, _shape(group), titles))
    legend: list[tuple[str, Shape, str]] = [
        (colour, "dot", f"prompt {i + 1}") for i, colour in enumerate(colours(count))
    ]
    legend += _groups(seen, "currentColor")
    title = "Maps by prompt"
    caption = f"Every point is the map of one picture under one prompt. {TSNE}"
    return _figure(title, scatter(title, marks, fitted.shares), legend, caption)


def _space(seen: Sequence[_Seen]) -> tuple[str, list[str]]:
    """Prompts and pictures in the space of both; and the same for each picture with the prompts
    that counted for it, "" where all did."""
    first = seen[0].view
    same = all(s.view.embeddings is first.embeddings for s in seen)
    distinct = [first] if same else [s.view for s in seen]
    fitted = plane(np.concatenate([v.embeddings.numpy() for v in distinct]))
    marks = [m for v in distinct for m in _prompts(v, fitted, np.ones(len(v.names), bool))]
    for group in dict.fromkeys(s.group for s in seen):
        rows = [s for s in seen if s.group == group]
        points = fitted.of(np.stack([s.view.image.numpy() for s in rows]))
        marks.append(Marks(points, PICTURE, _cross(group), [s.name for s in rows], faint=False))
    legend: list[tuple[str, Shape, str]] = [(NORMAL, "dot", "normal prompt")]
    legend += [(ABNORMAL, "dot", "abnormal prompt"), *_groups(seen, PICTURE, _cross)]
    title = "Prompts and pictures"
    caption = (
        "The plane is that of the prompts; pictures are projected onto it, so that what lies "
        f"outside of it is not seen, such as what sets all pictures apart from all texts. {TSNE}"
    )
    frame = np.concatenate([m.points for m in marks])
    views = [_chosen(s, fitted, frame) if not bool(s.view.kept.all()) else "" for s in seen]
    return _figure(title, scatter(title, marks, fitted.shares), legend, caption), views


def _chosen(seen: _Seen, fitted: Plane, frame: NDArray[np.float64]) -> str:
    """The prompts that counted for one picture, and in grey those that did not; ``frame`` [N, 2]:
    points for which there is room."""
    view, kept = seen.view, seen.view.kept.numpy()
    marks = [*_prompts(view, fitted, ~kept, faint=True), *_prompts(view, fitted, kept)]
    marks.append(Marks(fitted.of(view.image.numpy()[None]), PICTURE, "cross", [seen.name]))
    abnormal = view.abnormal.numpy()
    title = (
        f"After the method's choice: {int((kept & ~abnormal).sum())} of {int((~abnormal).sum())} "
        f"normal and {int((kept & abnormal).sum())} of {int(abnormal.sum())} abnormal prompts; the "
        "others are grey"
    )
    return _figure(title, scatter(title, marks, fitted.shares, frame), [], "")


def _prompts(
    view: PromptView, fitted: Plane, chosen: NDArray[np.bool_], faint: bool = False
) -> Iterator[Marks]:
    """The chosen prompts, by label; numbered where they are few."""
    placed, abnormal = fitted.of(view.embeddings.numpy()), view.abnormal.numpy()
    numbers = np.cumsum(abnormal)
    for label, colour in ((False, NORMAL), (True, ABNORMAL)):
        rows = np.flatnonzero(chosen & (abnormal == label)).tolist()
        few = label and int(abnormal.sum()) <= NUMBERED
        labels = [str(numbers[i]) for i in rows] if few else []
        shape: Shape = "ring" if faint else "dot"
        titles = [view.names[i] for i in rows]
        own = DROPPED if faint else colour
        yield Marks(placed[rows], own, shape, titles, labels, faint)


def colours(count: int) -> list[str]:
    """So many colours, apart from each other on white and on black."""
    made = []
    for i in range(count):
        rgb = colorsys.hls_to_rgb(i / count, 0.38 if i % 2 else 0.52, 0.75)
        made.append("#" + "".join(f"{round(255 * part):02x}" for part in rgb))
    return made


def _shape(group: str) -> Shape:
    return "ring" if group == "normal" else "dot"


def _cross(group: str) -> Shape:
    return "ring" if group == "normal" else "cross"


def _groups(
    seen: Sequence[_Seen], colour: str, shape: Callable[[str], Shape] = _shape
) -> list[tuple[str, Shape, str]]:
    """What the shapes of points say, where folders say anything."""
    found = list(dict.fromkeys(s.group for s in seen))
    other = "picture of another folder" if len(found) > 1 else "picture"
    words = {"normal": "normal picture", "anomalous": "anomalous picture", "": other}
    return [(colour, shape(group), words[group]) for group in found]


def _figure(
    title: str, drawing: str, legend: Sequence[tuple[str, Shape, str]], caption: str
) -> str:
    keys = "".join(f"<li>{_key(*entry)}</li>" for entry in legend)
    keys = f'<ul class="legend">{keys}</ul>' if keys else ""
    below = f" {html_text(caption)}" if caption else ""
    return (
        f"<figure>{drawing}{keys}<figcaption><b>{html_text(title)}.</b>{below}</figcaption>"
        "</figure>"
    )


def _key(colour: str, shape: Shape, words: str) -> str:
    line = f'stroke="{colour}" stroke-width="1.8"'
    if shape == "cross":
        mark = f'<path d="M3 3l8 8m0 -8l-8 8" {line}/>'
    else:
        fill = f'fill="{colour}"' if shape == "dot" else f'fill="none" {line}'
        mark = f'<circle cx="7" cy="7" r="4" {fill}/>'
    return f'<svg viewBox="0 0 14 14" aria-hidden="true">{mark}</svg>{html_text(words)}'
