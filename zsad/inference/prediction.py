"""What is said of a picture without a label: score, map, thresholds, regions, reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zsad.components.reasons import fitting
from zsad.data.ignored import shrunk
from zsad.inference import regions as found_regions
from zsad.inference.regions import Findings
from zsad.results import heatmaps
from zsad.runtime.thresholds import Thresholds as Thresholds
from zsad.types import Explanation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AS_A_WHOLE = "anomalous as a whole, nothing stands out"


@dataclass
class Prediction:
    """``image_score``: anomaly score; ``values``: the anomaly map at the size at which the model
    made it, float32 [h, w], higher is worse.

    ``size``: (height, width) of the picture; None: that of ``values``.  ``ignored``: pixels of the
    picture that are not looked at, bool [H, W]; ``sees_ignored``: whether the score depends on
    them nevertheless.  ``files``: what was written, by kind.  ``made_by``: what made the
    prediction.  ``error``: why there is no score (NaN) and no map (None).
    ``info``: figures about the picture by name; under "raw_score" the image score before the
    method stretched it over the pictures of its category.
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
    _findings: tuple[float | None, Findings] | None = field(default=None, repr=False, compare=False)

    @property
    def anomaly_map(self) -> NDArray[np.float32] | None:
        """The map at the picture's size, float32 [H, W], enlarged bilinearly on every call."""
        if self.values is None or self.size is None:
            return self.values
        return heatmaps.enlarged(self.values, self.size)

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

    def set_by_hand(self, image: float | None = None, pixel: float | None = None) -> None:
        """Put thresholds of one's own in place of the others; None leaves one as it is."""
        if image is None and pixel is None:
            return
        held = self.thresholds or Thresholds(None, None)
        self.thresholds = Thresholds(
            held.image if image is None else image, held.pixel if pixel is None else pixel, "given"
        )
