"""What is said of a picture without a label: score, map, thresholds, reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from zsad.types import Explanation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Thresholds:
    """From where on a picture (``image``) and a pixel (``pixel``) count as anomalous; both
    inclusive; None: no rule says.  :mod:`zsad.inference.calibration` has the rules.

    ``normal_pictures`` and ``false_alarms`` (the highest expected share of normal pictures that
    are called anomalous) are those of a calibration.
    """

    image: float | None
    pixel: float | None
    rule: Literal["uncalibrated", "calibrated", "given"] = "uncalibrated"
    normal_pictures: int = 0
    false_alarms: float | None = None


@dataclass
class Prediction:
    """``image_score``: anomaly score; ``anomaly_map``: float32 array [H, W].

    ``files``: what was written, by kind.  ``error``: why there is no score (NaN) and no map (None).
    ``info``: figures about the picture by name; under "raw_score" the image score before the
    method stretched it over the pictures of its category.
    """

    image_score: float
    anomaly_map: NDArray[np.float32] | None
    explanations: list[Explanation] = field(default_factory=list)
    path: str | None = None
    thresholds: Thresholds | None = None
    files: dict[str, str] = field(default_factory=dict)
    error: str = ""
    info: dict[str, float] = field(default_factory=dict)

    @property
    def anomalous(self) -> bool | None:
        """Whether the score reaches its threshold; None without one."""
        limit = self.thresholds.image if self.thresholds else None
        return None if limit is None or self.error else bool(self.image_score >= limit)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Where the map reaches its threshold, bool array [H, W]; None without one."""
        limit = self.thresholds.pixel if self.thresholds else None
        if limit is None or self.error or self.anomaly_map is None:
            return None
        return self.anomaly_map >= limit

    def set_by_hand(self, image: float | None = None, pixel: float | None = None) -> None:
        """Put thresholds of one's own in place of the others; None leaves one as it is."""
        if image is None and pixel is None:
            return
        held = self.thresholds or Thresholds(None, None)
        self.thresholds = Thresholds(
            held.image if image is None else image, held.pixel if pixel is None else pixel, "given"
        )
