"""What is said of a picture without a label: score, map, thresholds, regions, reasons."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zsad.components.reasons import fitting
from zsad.data.ignored import shrunk
from zsad.data.images import read_image
from zsad.errors import DataError, shown
from zsad.inference import regions as found_regions
from zsad.inference.regions import Findings
from zsad.page import html_text
from zsad.results import heatmaps
from zsad.runtime.enlarging import enlarged
from zsad.runtime.regions import AS_A_WHOLE
from zsad.runtime.thresholds import Thresholds
from zsad.types import Explanation, PromptView

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(repr=False)
class Prediction:
    """``image_score``: anomaly score; ``values``: the anomaly map at the size at which the model
    made it, float32 [h, w], higher is worse.

    ``size``: (height, width) of the picture; None: that of ``values``.  ``ignored``: pixels of the
    picture that are not looked at, bool [H, W]; ``sees_ignored``: whether the score depends on
    them nevertheless.  ``files``: what was written, by kind.  ``made_by``: what made the
    prediction.  ``error``: why there is no score (NaN) and no map (None).
    ``info``: figures about the picture by name; under "raw_score" the image score before the
    method stretched it over the pictures of its category.
    ``prompts``: what the single prompts say of the whole picture, where that was asked for.
    ``reasons``: for either verdict, best first; ``most``: how many of them :attr:`explanations`
    gives.
    """

    image_score: float
    values: NDArray[np.float32] | None
    reasons: list[Explanation] = field(default_factory=list)
    path: str | None = None
    thresholds: Thresholds | None = None
    files: dict[str, str] = field(default_factory=dict)
    error: str = ""
    info: dict[str, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    ignored: NDArray[np.bool_] | None = None
    sees_ignored: bool = False
    made_by: dict[str, Any] = field(default_factory=dict)
    most: int = 5
    prompts: PromptView | None = None
    _findings: tuple[float | None, Findings] | None = field(default=None, repr=False, compare=False)

    @property
    def anomaly_map(self) -> NDArray[np.float32] | None:
        """The map at the picture's size, float32 [H, W], enlarged bilinearly on every call."""
        if self.values is None or self.size is None:
            return self.values
        return enlarged(self.values, self.size)

    @property
    def seen(self) -> NDArray[np.float32] | None:
        """The values that count: all of them, or those [n] of the pixels that are not ignored."""
        if self.values is None or self.ignored is None:
            return self.values
        return self.values[~shrunk(self.ignored, self.values.shape)]

    @property
    def anomalous(self) -> bool | None:
        """Whether the score reaches its threshold; None without one."""
        limit = self.thresholds.image if self.thresholds else None
        return None if limit is None or self.error else bool(self.image_score >= limit)

    @property
    def explanations(self) -> list[Explanation]:
        """The reasons that fit the verdict: normal ones for a picture that is called normal, the
        others for one that is called anomalous, the best of all without a verdict."""
        return fitting(self.reasons, self.anomalous, self.most)

    @property
    def pixel_limit(self) -> float | None:
        """The threshold of a pixel; None without one."""
        return self.thresholds.pixel if self.thresholds and not self.error else None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Where the map reaches its threshold, bool array [H, W]; None without one."""
        limit, whole = self.pixel_limit, self.anomaly_map
        if limit is None or whole is None:
            return None
        return found_regions.marked(whole, limit, self.ignored)

    @property
    def findings(self) -> Findings | None:
        """The regions of the mask, and the share of the picture that they take; None without a
        mask."""
        limit = self.pixel_limit
        if limit is None or self.values is None:
            return None
        if self._findings is None or self._findings[0] != limit:
            whole = self.anomaly_map
            assert whole is not None
            self._findings = (limit, found_regions.find(whole, limit, self.ignored))
        return self._findings[1]

    @property
    def note(self) -> str:
        """What a reader of score and mask should know, or ""."""
        found = self.findings
        whole = bool(self.anomalous) and found is not None and not found.regions
        return AS_A_WHOLE if whole else ""

    def to_dict(self) -> dict[str, Any]:
        """What is said about the picture, ready for JSON: the line of ``zsad predict``."""
        if self.error:
            return {"path": self.path, "error": self.error}
        limits, findings, seen = self.thresholds, self.findings, self.seen
        said: dict[str, Any] = {
            "path": self.path,
            "image_score": self.image_score,
            "anomalous": self.anomalous,
            "marked": None if findings is None else findings.share,
            "map_max": None if seen is None else float(seen.max()),
            "note": self.note or None,
            "regions": [r.plain() for r in findings.regions] if findings else [],
            "regions_omitted": findings.omitted if findings else 0,
            "thresholds": asdict(limits) if limits else None,
            "explanations": [asdict(e) for e in self.explanations],
            "files": dict(self.files),
            "made_by": dict(self.made_by),
        }
        if self.ignored is not None:
            said["ignored"] = float(self.ignored.mean())
            said["score_sees_ignored"] = self.sees_ignored
        return said

    # ------------------------------------------------------------------- to look at
    def overlay(
        self, picture: Image.Image | None = None, scale: tuple[float, float] | None = None
    ) -> Image.Image:
        """The picture under its heat map, regions outlined: what ``zsad predict`` writes.

        ``picture``: where the prediction has no ``path``, or another one is to be shown;
        ``scale``: the values of the coldest and the hottest colour.  Raises :class:`DataError` for
        a picture that could not be scored, and without any picture.
        """
        seen, findings = self.seen, self.findings
        if seen is None or self.values is None:
            raise DataError(f"{self.path}: has no anomaly map; {self.error}")
        if picture is None:
            if self.path is None:
                raise DataError("the prediction has no path: give overlay() the picture")
            picture = read_image(self.path)
        low, high = scale or heatmaps.span(seen, self.pixel_limit)
        return heatmaps.overlay(
            picture,
            self.values,
            low,
            high,
            outlines=[r.contour for r in findings.regions] if findings else (),
            boxes=[
                (reason.region, f"{reason.text} {reason.similarity:.2f}".strip())
                for reason in self.reasons
                if reason.region is not None and reason.source == "detector"
            ],
            ignored=self.ignored,
            caption=str(self.made_by.get("mark", "")),
        )

    def save(self, path: str | Path, picture: Image.Image | None = None) -> Path:
        """Write :meth:`overlay` as a picture, of the format that the name ends with.

        Raises ``OSError`` and ``ValueError`` as Pillow does.
        """
        self.overlay(picture).save(path)
        return Path(path)

    def plot(self, picture: Image.Image | None = None) -> Figure:
        """A matplotlib figure: the heat map beside its scale, with score and verdict above.

        Raises ``ImportError`` without matplotlib.
        """
        from matplotlib.figure import Figure

        heat = self.overlay(picture)
        figure = Figure(figsize=(6, 6 * heat.height / heat.width + 0.4), layout="constrained")
        axes = figure.subplots()
        axes.imshow(np.asarray(heat))
        axes.set_axis_off()
        axes.set_title(self._verdict())
        return figure

    def _verdict(self) -> str:
        verdict = {None: "no threshold", True: "anomalous", False: "normal"}[self.anomalous]
        return f"score {self.image_score:.4g}, {verdict}"

    def __repr__(self) -> str:
        """One line: path, score and verdict, or the error; never the map's values."""
        name = f"{self.path}: " if self.path else ""
        return f"<Prediction {shown(name)}{shown(self.error) or self._verdict()}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: heat map, verdict and reasons."""
        if self.error:
            return f"<p>{html_text(self.path)}: {html_text(self.error)}</p>"
        try:
            buffer = io.BytesIO()
            self.overlay().save(buffer, "WEBP", quality=80)
            raw = base64.b64encode(buffer.getvalue()).decode()
            image = (
                f'<img alt="heat map" style="max-width:24rem" src="data:image/webp;base64,{raw}">'
            )
        except DataError:  # of a tensor, or of a file that is gone
            image = ""
        reasons = "".join(f"<li>{html_text(e.text)}</li>" for e in self.explanations)
        name = f"{html_text(self.path)}: " if self.path else ""
        mark = f" ({html_text(m)})" if (m := self.made_by.get("mark")) else ""
        return f"<div>{image}<p>{name}{self._verdict()}{mark}</p><ul>{reasons}</ul></div>"

    def set_by_hand(self, image: float | None = None, pixel: float | None = None) -> None:
        """Put thresholds of one's own in place of the others; None leaves one as it is."""
        if image is None and pixel is None:
            return
        held = self.thresholds or Thresholds(None, None)
        self.thresholds = Thresholds(
            held.image if image is None else image, held.pixel if pixel is None else pixel, "given"
        )
