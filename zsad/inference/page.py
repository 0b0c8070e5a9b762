"""The page of a run of ``zsad predict``: all pictures, by score, to be looked at in a browser.

``index.html`` opens from disk, without a network.  It holds what the list needs; beside it lie,
for each picture, ``thumbs/x.thumb.webp`` (the picture, small), ``thumbs/x.layer.webp`` (its map,
the cold part transparent) and ``thumbs/x.detail.js`` (regions, reasons and the map's values, loaded
when a picture is opened).  As one file all of it lies in the page.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from zsad import __version__
from zsad.data import own_outputs
from zsad.data.ignored import shrunk
from zsad.data.images import read_image
from zsad.errors import shown
from zsad.inference.pictures import Photo
from zsad.inference.prediction import Prediction
from zsad.page import asset, embedded, filled
from zsad.results import heatmaps
from zsad.runtime.enlarging import enlarged

INDEX = "index.html"
FOLDER = "thumbs"
SCRIPTS = ("elements", "csv", "shortest", "predictions")
ENDINGS = {"photo": "thumb.webp", "heat": "layer.webp", "script": "detail.js"}
SIDE = 512  # pixels of a small picture
MOST_BYTES = 30_000  # of a small picture, and of a map over it
VALUES = 96  # side of the map's values that the page draws masks of
SHOWN = 20  # regions that are outlined
MOST_IN_ONE = 200  # pictures of a page that is one file

Write = Callable[[Path, bytes], str]


@dataclass
class PredictionPage:
    """Collects what the page says of each picture; :meth:`close` writes it.

    ``write``: writes a file below ``out``; ``one_file``: everything lies in the page; ``bits``: as
    :class:`zsad.inference.pictures.Reading` has it.
    """

    out: Path
    write: Write
    one_file: bool = False
    scale: tuple[float, float] | None = None
    bits: int = 0
    _entries: list[dict[str, Any]] = field(default_factory=list)
    _made_by: Mapping[str, Any] = field(default_factory=dict)
    _limits: Mapping[str, Any] = field(default_factory=dict)

    def put(self, found: Prediction, photo: Photo) -> None:
        """Take one picture in, and write its small files."""
        name = photo.stem.as_posix()
        entry: dict[str, Any] = {
            "name": name,
            "path": str(found.path),
            "link": _link(photo.path, self.out),
        }
        if found.path != str(photo.path):  # it has another name than its file
            entry["title"] = str(found.path)
        if found.error:
            self._entries.append({**entry, "error": found.error})
            return
        self._made_by = self._made_by or found.made_by
        if found.thresholds and not self._limits:
            self._limits = asdict(found.thresholds)
        peak = _peak(found)  # before the picture is read: both are large
        image = read_image(photo.path, bits=self.bits)
        findings = found.findings
        entry |= {
            "score": found.image_score,
            "peak": peak,
            "pixel": found.pixel_limit,
            "share": None if findings is None else findings.share,
            "regions": None if findings is None else len(findings.regions) + findings.omitted,
            "note": found.note,
            "size": [image.width, image.height],
        }
        made_by = own_outputs.exif(found.made_by)
        pictures = {
            "photo": _encoded(_small(image), made_by),
            "heat": _encoded(self._layer(found, image.size), made_by),
        }
        if self.one_file:
            entry |= {kind: _data_uri(raw) for kind, raw in pictures.items()}
            entry["detail"] = _detail(found)
        else:
            base = self.out / FOLDER / photo.stem
            script = f"zsadDetail({embedded(name)},{embedded(_detail(found))})\n"
            for kind, raw in {**pictures, "script": script.encode()}.items():
                file = base.with_name(f"{base.name}.{ENDINGS[kind]}")
                self.write(file, raw)
                entry[kind] = quote(file.relative_to(self.out).as_posix())
        self._entries.append(entry)

    def close(self) -> str | None:
        """Write ``index.html``; None where there was no picture."""
        if not self._entries:
            return None
        return self.write(self.out / INDEX, self.document().encode())

    def document(self) -> str:
        """The page about the pictures so far."""
        data = {
            "pictures": self._entries,
            "limits": dict(self._limits),
            "made_by": dict(self._made_by),
        }
        scripts = "".join(asset(f"{name}.js") for name in SCRIPTS)
        parts = {
            "STYLE": asset("predictions.css"),
            "SCRIPT": f'"use strict";\n(() => {{\n{scripts}\n}})();',
            "VERSION": shown(__version__),
            "DATA": embedded(data),
        }
        return filled(asset("predictions.html"), parts)

    def _layer(self, found: Prediction, size: tuple[int, int]) -> Image.Image:
        """The colours of the map of a picture of ``size`` (width, height); what is cold is
        transparent, as on the written heat map."""
        seen, values = found.seen, found.values
        assert seen is not None
        assert values is not None
        low, high = self.scale or heatmaps.span(seen, found.pixel_limit)
        factor = min(1.0, SIDE / 2 / max(size))
        width, height = (max(1, round(side * factor)) for side in size)
        small = enlarged(values, (height, width))
        alpha = heatmaps.opacity_of(small, low, high)
        if found.ignored is not None:
            alpha[shrunk(found.ignored, small.shape)] = 0
        pixels = np.dstack([heatmaps.heat(small, low, high), np.round(255 * alpha)])
        return Image.fromarray(pixels.astype(np.uint8), "RGBA")


# ------------------------------------------------------------------------------- pictures
def _small(image: Image.Image) -> Image.Image:
    factor = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _encoded(picture: Image.Image, exif: bytes) -> bytes:
    """WebP of at most :data:`MOST_BYTES`: of lower quality, and then smaller, until it fits."""
    while True:
        for quality in (80, 60, 40, 20):
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, alpha_quality=quality, exif=exif)
            if buffer.tell() <= MOST_BYTES:
                return buffer.getvalue()
        picture = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))


def _data_uri(raw: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(raw).decode()}"


# -------------------------------------------------------------------------------- details
def _peak(found: Prediction) -> float:
    """The highest value of the pixels that are looked at: from there on one is marked."""
    whole = found.anomaly_map
    assert whole is not None
    return float(whole.max() if found.ignored is None else whole[~found.ignored].max())


def _detail(found: Prediction) -> dict[str, Any]:
    """What is needed when a picture is opened."""
    assert found.values is not None
    findings = found.findings
    listed = findings.regions[:SHOWN] if findings else ()
    return {
        "regions": [r.plain() for r in listed],
        "omitted": 0
        if findings is None
        else len(findings.regions) + findings.omitted - len(listed),
        "reasons": [{"text": e.text, "label": e.label, "note": e.note} for e in found.explanations],
        "values": _values(found),
    }


def _values(found: Prediction) -> dict[str, Any]:
    """The map in 256 steps and at most :data:`VALUES` a side, to draw masks of any threshold."""
    values = found.values
    assert values is not None
    height, width = values.shape
    factor = min(1.0, VALUES / max(height, width))
    small = enlarged(values, (max(1, round(height * factor)), max(1, round(width * factor))))
    low, high = float(small.min()), float(small.max())
    steps = np.round(255 * heatmaps.level(small, low, high)).astype(np.uint8)
    if found.ignored is not None:
        steps[shrunk(found.ignored, small.shape)] = 0
    return {
        "size": [small.shape[1], small.shape[0]],
        "low": low,
        "high": high,
        "steps": base64.b64encode(steps.tobytes()).decode(),
    }


def _link(picture: Path, out: Path) -> str:
    """The picture as an address relative to the page; "" where there is none."""
    try:
        return quote(Path(os.path.relpath(picture, out)).as_posix())
    except (OSError, ValueError):  # on another drive
        return ""
