"""What the metrics of images and pixels share: their report, merging, typed list states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsad.metrics import spec
from zsad.metrics.functional import Curve
from zsad.torchvision_compat import torchmetrics


@dataclass
class MetricReport:
    """Values by metric name (None: undefined), the reasons of undefined ones, and for values of
    binned curves the largest distance to the exact value.  ``per_image``: one value per image in
    the order seen, of metrics that have such (None: the image has none).  ``n_normal``,
    ``n_anomalous``: items seen, of all processes."""

    metrics: dict[str, float | None]
    undefined: dict[str, str]
    bounds: dict[str, float] = field(default_factory=dict)
    n_normal: int = 0
    n_anomalous: int = 0
    per_image: dict[str, list[float | None]] = field(default_factory=dict)

    @classmethod
    def without(cls, names: Iterable[str], reason: str, curve: Curve | None = None) -> MetricReport:
        """Build the report of metrics that are all undefined for one reason."""
        names = tuple(names)
        counts = (curve.n_normal, curve.n_anomalous) if curve else (0, 0)
        return cls(
            dict.fromkeys(names),
            dict.fromkeys(names, reason),
            n_normal=counts[0],
            n_anomalous=counts[1],
        )


def one_class(curve: Curve, items: str) -> str:
    """Return why no ranking metric is defined on ``curve``, or ''."""
    if not curve.n_normal and not curve.n_anomalous:
        return f"no {items}"
    if not curve.n_anomalous:
        return f"no anomalous {items}: all {curve.n_normal} are normal"
    if not curve.n_normal:
        return f"no normal {items}: all {curve.n_anomalous} are anomalous"
    return ""


class RankingMetric(torchmetrics.Metric):
    """A torchmetrics ``Metric`` of one or several entries of :data:`zsad.metrics.spec.METRICS`,
    whose states can be merged in any order.

    :meth:`compute` gives tensors, as a ``MetricCollection`` and Lightning's ``log_dict`` want them,
    NaN where undefined; with ``single`` the only value itself, as Lightning's ``log`` wants it.
    :meth:`report` gives the same in double precision with reasons and bounds.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, names: Iterable[str], single: bool = False, **kwargs: Any) -> None:
        # A cached value would outlive a merge.
        super().__init__(**{"compute_with_cache": False, **kwargs})
        self.names = tuple(names)
        self.single = single
        if single and len(self.names) != 1:
            raise ValueError(f"a single value needs one name, not {len(self.names)}")
        self.merged = False
        self._list_types: dict[str, torch.dtype] = {}

    @abstractmethod
    def _report(self) -> MetricReport:
        """Return everything about the states as they are."""

    def report(self) -> MetricReport:
        """Return values, reasons and bounds, over all processes where several run."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return self._report()

    def compute(self) -> dict[str, Tensor] | Tensor:
        """Return a scalar per metric by name, or (``single``) one scalar; NaN where undefined."""
        values = {
            name: torch.tensor(float("nan") if value is None else value, device=self.device)
            for name, value in self._report().metrics.items()
        }
        return values[self.names[0]] if self.single else values

    # ------------------------------------------------------------------------- list states
    def add_list(self, name: str, dtype: torch.dtype) -> None:
        """Add a state that is a list of 1-D tensors, concatenated over processes."""
        self._list_types[name] = dtype
        self.add_state(name, [], dist_reduce_fx="cat")

    def joined(self, name: str, own: bool = False) -> np.ndarray:
        """Return a list state as one array on the CPU, to be read only; ``own``: a copy."""
        value: Tensor | list[Tensor] = getattr(self, name)
        if isinstance(value, Tensor):  # after gathering
            value = [value]
        if not value:
            return np.zeros(0, torch.zeros(0, dtype=self._list_types[name]).numpy().dtype)
        return (torch.cat(value) if own or len(value) > 1 else value[0]).cpu().numpy()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather over processes; one that has seen no data takes part with typed empties."""
        for name, dtype in self._list_types.items():
            if not getattr(self, name):
                getattr(self, name).append(torch.zeros(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    # ----------------------------------------------------------------------------- merging
    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Add everything that another metric of the same kind has seen, after what is here."""
        mine = {name: getattr(self, name) for name in self._list_types}
        super().merge_state(incoming_state)
        for name, own in mine.items():  # torchmetrics puts what comes in first
            merged = getattr(self, name)
            if isinstance(own, list) and isinstance(merged, list):
                setattr(self, name, [*own, *merged[: len(merged) - len(own)]])
        self.merged = True

    @property
    def update_called(self) -> bool:
        """Whether anything was seen, by updates or by merging."""
        return self.merged or super().update_called

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.merged = False


def of_curve(metric: RankingMetric, curve: Curve, binned: bool = False) -> MetricReport:
    """Return the report of a metric whose values are functions of one curve."""
    report = MetricReport({}, {}, n_normal=curve.n_normal, n_anomalous=curve.n_anomalous)
    for name in metric.names:
        entry = spec.METRICS[name]
        arguments = [getattr(metric, a) for a in entry.arguments]
        value = spec.resolve(entry.function)(curve, *arguments)
        report.metrics[name] = value
        if value is None:
            report.undefined[name] = entry.reason
        elif binned and entry.bound:
            report.bounds[name] = spec.resolve(entry.bound)(curve, *arguments)
    return report
