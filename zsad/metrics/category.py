"""All metrics of one category, from one pass over its batches."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from zsad.errors import RequestError, counted
from zsad.metrics import spec
from zsad.metrics.base import MetricReport, RankingMetric
from zsad.metrics.image import ImageRanking
from zsad.metrics.image_pixels import ImagePixels
from zsad.metrics.pixel import PixelHistogram, PixelScores
from zsad.metrics.pixel_table import PixelTable
from zsad.metrics.regions import BatchRegions
from zsad.metrics.spec import MODES, Mode
from zsad.torchvision_compat import torchmetrics

if TYPE_CHECKING:
    from zsad.config import MetricSettings


@dataclass
class MetricResult:
    """``metrics``: by the names of :data:`zsad.metrics.spec.METRICS`, in [0, 1]; None where
    undefined, and ``undefined`` says why.  ``bounds``: for binned pixel metrics, the largest
    distance to the exact value.  ``per_image``: of metrics that have them, one value per image in
    the order seen, None where it has none."""

    metrics: dict[str, float | None]
    undefined: dict[str, str]
    n_normal: int
    n_anomalous: int
    bounds: dict[str, float] = field(default_factory=dict)
    per_image: dict[str, list[float | None]] = field(default_factory=dict)


class CategoryMetrics(torchmetrics.wrappers.abstract.WrapperMetric):
    """The metrics of a category: those that records always hold, or those of ``names``.

    ``binned`` streams pixels into a histogram of fixed size and reports an error bound;
    ``exact`` keeps every pixel.  Image metrics are exact in both.  Scores and maps may have any
    scale: nothing is clamped, squashed or stretched.  Pixels are counted where the first maps lie,
    on the CPU where their device has no float64; ``device``: there from the beginning.
    ``aupro_200`` adds the released approximation.  The result is not a single number: use
    :func:`zsad.metrics.single_metric` in a ``MetricCollection`` or with Lightning's ``log``.
    """

    def __init__(
        self,
        mode: Mode = "binned",
        fpr_limit: float = 0.3,
        aupro_200: bool = False,
        names: Iterable[str] | None = None,
        device: torch.device | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mode not in MODES:
            raise RequestError(f"metric mode must be 'binned' or 'exact', not '{mode}'")
        if not 0 < fpr_limit <= 1:
            raise RequestError(f"fpr_limit must be above 0 and at most 1, not {fpr_limit}")
        self.names = spec.chosen({"aupro_200": aupro_200}) if names is None else tuple(names)
        entries = [spec.METRICS[name] for name in self.names]
        pooled = {
            level: [m.name for m in entries if m.level == level and not m.states]
            for level in ("image", "pixel")
        }
        form = PixelHistogram if mode == "binned" else PixelScores
        self.image = ImageRanking(names=pooled["image"], **kwargs)
        with torch.device(device) if device and counts(device) else nullcontext():
            self.pixel = form(names=pooled["pixel"], fpr_limit=fpr_limit, **kwargs)
        self.own = torch.nn.ModuleList(
            spec.resolve(m.states)(names=(m.name,), mode=mode, **kwargs)
            for m in entries
            if m.states
        )
        self.mapless = False

    @classmethod
    def of(cls, settings: MetricSettings, **kwargs: Any) -> CategoryMetrics:
        """Build what ``metrics.*`` settings ask for, with the pixels of every image in bins."""
        names = spec.chosen(asdict(settings))
        found = cls(settings.mode, settings.fpr_limit, names=names, **kwargs)
        found.pixel.images = ImagePixels()
        return found

    def pixel_table(self) -> PixelTable | None:
        """The pixels of every image over common bins, in the order seen; None where they are not
        kept, or where pixel metrics are undefined."""
        if self.pixel.images is None or self.mapless or int(self.pixel.without_mask):
            return None
        return self.pixel.images.table()

    @property
    def _with_states(self) -> list[RankingMetric]:
        """The pixel metrics with states of their own."""
        return [cast("RankingMetric", metric) for metric in self.own]

    def update(
        self,
        maps: Tensor | None,
        masks: Tensor | None,
        image_scores: Tensor,
        labels: Tensor,
        has_mask: Tensor | None = None,
        ignored: Tensor | None = None,
        regions: BatchRegions | None = None,
    ) -> None:
        """Take a batch: maps [B, H, W], masks [B, H, W], image scores [B], labels [B].

        ``ignored`` [B, H, W]: pixels that no metric of pixels looks at.

        ``masks`` None: no image of the batch has one.  ``has_mask`` [B]: which images have one
        (default: all, if ``masks`` is given).  A normal image needs none; an anomalous one
        without a mask makes the pixel metrics undefined.  ``maps`` None: so does a method that
        has no maps.  ``regions``: those of the masks, where they were found already; masks may then
        lie on the CPU.  Raises :class:`CellError` on NaN or infinite values, ``ValueError`` on
        shapes that do not fit.
        """
        anomalous = labels.reshape(-1) > 0
        if maps is None:
            self.mapless = True
        else:
            _check_shapes(maps, masks, anomalous)
            maps = maps if counts(maps.device) else maps.cpu()
            if self.pixel.device != maps.device:
                self.pixel.to(maps.device)
                self.own.to(maps.device)
            if masks is None:
                missing = int(anomalous.sum())
            elif has_mask is None:
                missing = 0
            else:
                missing = int((anomalous & ~has_mask.to(anomalous.device)).sum())
            if ignored is not None:
                _check_shapes(maps, ignored, anomalous, "ignored")
            self.pixel.update(maps, masks, missing, ignored, regions)
            for metric in self._with_states:
                metric.update(maps, masks, labels, missing, ignored)
        where = image_scores.device if counts(image_scores.device) else torch.device("cpu")
        if self.image.device != where:
            self.image.to(where)
        self.image.update(image_scores, labels)

    def compute(self) -> MetricResult:
        """Return all metrics, over all processes where several run."""
        image, parts = self.image.report(), [self.pixel, *self._with_states]
        if self.mapless:
            why = "the method gives no anomaly maps"
            reports = [image, *(MetricReport.without(part.names, why) for part in parts)]
        else:
            reports = [image, *(part.report() for part in parts)]
        found = {name: value for r in reports for name, value in r.metrics.items()}
        return MetricResult(
            {name: found[name] for name in self.names},
            {name: why for r in reports for name, why in r.undefined.items()},
            image.n_normal,
            image.n_anomalous,
            bounds={name: bound for r in reports for name, bound in r.bounds.items()},
            per_image={name: values for r in reports for name, values in r.per_image.items()},
        )

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Update only: metrics of a single batch would mislead."""
        self.update(*args, **kwargs)

    def reset(self) -> None:
        """Forget everything; start the next category."""
        self.mapless = False
        self.image.reset()
        self.pixel.reset()
        if self.pixel.images is not None:
            self.pixel.images = ImagePixels()
        for metric in self._with_states:
            metric.reset()

    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Add everything that another ``CategoryMetrics`` of the same settings has seen."""
        if not isinstance(incoming_state, CategoryMetrics):
            raise ValueError(f"cannot merge {type(incoming_state).__name__} into CategoryMetrics")
        if self.names != incoming_state.names:
            raise ValueError("cannot merge CategoryMetrics of different metrics")
        self.mapless |= incoming_state.mapless
        self.image.merge_state(incoming_state.image)
        self.pixel.merge_state(incoming_state.pixel)
        if self.pixel.images is not None and incoming_state.pixel.images is not None:
            self.pixel.images.extend(incoming_state.pixel.images)
        for metric, other in zip(self._with_states, incoming_state._with_states):
            metric.merge_state(other)


def counts(device: torch.device) -> bool:
    """Whether a device has the numbers to count with: Apple's has no float64."""
    return device.type != "mps"


def _check_shapes(maps: Tensor, masks: Tensor | None, labels: Tensor, name: str = "masks") -> None:
    if maps.dim() != 3 or len(maps) != len(labels):
        raise ValueError(f"maps {tuple(maps.shape)} do not fit {counted(len(labels), 'label')}")
    if masks is not None and masks.shape != maps.shape:
        raise ValueError(f"{name} {tuple(masks.shape)} do not fit maps {tuple(maps.shape)}")
    if masks is not None and masks.dtype != torch.bool:
        raise ValueError(f"{name} must be boolean, not {masks.dtype}")
