"""What the metrics of images and pixels share: their report, merging, typed list states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from zsad.metrics.functional import Curve


@dataclass
class Report:
    """Values by metric name (None: undefined), the reasons of undefined ones, and for values of
    binned curves the largest distance to the exact value.  ``n_normal``, ``n_anomalous``: items
    seen, of all processes."""

    metrics: dict[str, float | None]
    undefined: dict[str, str]
    bounds: dict[str, float] = field(default_factory=dict)
    n_normal: int = 0
    n_anomalous: int = 0

    @classmethod
    def without(cls, names: Iterable[str], reason: str, curve: Curve | None = None) -> Report:
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


class RankingMetric(Metric):
    """A torchmetrics ``Metric`` whose states can be merged in any order."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._list_types: dict[str, torch.dtype] = {}

    def add_list(self, name: str, dtype: torch.dtype) -> None:
        """Add a state that is a list of 1-D tensors, concatenated over processes."""
        self._list_types[name] = dtype
        self.add_state(name, [], dist_reduce_fx="cat")

    def joined(self, name: str) -> np.ndarray:
        """Return a list state as one array on the CPU."""
        value: Tensor | list[Tensor] = getattr(self, name)
        if isinstance(value, Tensor):  # after gathering
            return value.cpu().numpy()
        if not value:
            return np.zeros(0, torch.zeros(0, dtype=self._list_types[name]).numpy().dtype)
        return torch.cat(value).cpu().numpy()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather over processes; one that has seen no data takes part with typed empties."""
        for name, dtype in self._list_types.items():
            if not getattr(self, name):
                getattr(self, name).append(torch.zeros(0, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add everything that another metric of the same kind has seen."""
        super().merge_state(incoming_state)
        self._computed = None
        seen = incoming_state._update_count if isinstance(incoming_state, Metric) else 1
        self._update_count += seen
