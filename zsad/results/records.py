"""One stored result, and the key it is stored under."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, order=True)
class CellKey:
    """Names one cell of a sweep.  ``fingerprint`` hashes everything that changes numbers."""

    method: str
    dataset: str
    category: str
    seed: int
    fingerprint: str = ""

    def document(self) -> dict[str, Any]:
        """The cell's name as every JSON document gives it; the fingerprint is the store's."""
        return {
            "method": self.method,
            "dataset": self.dataset,
            "category": self.category,
            "seed": self.seed,
        }


@dataclass
class CellRecord:
    """The stored result of one cell.  A metric that is undefined is None, and ``undefined``
    gives the reason."""

    method: str
    dataset: str
    category: str
    seed: int
    fingerprint: str
    metrics: dict[str, float | None]
    undefined: dict[str, str]
    n_normal: int
    n_anomalous: int
    seconds: dict[str, float]
    info: dict[str, Any] = field(default_factory=dict)
