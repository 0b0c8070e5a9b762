"""What is asked of ``zsad.load_method`` and ``zsad.predict``; :mod:`zsad.api` explains every word.

No torch: a wrong request ends before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsad.errors import RequestError, unknown

Paths = str | Path | Sequence[str | Path]
Overrides = Mapping[str, Any] | Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """One method on one backbone; see :func:`zsad.api.load_method`."""

    name: str
    backbone: str = "vit-l-14-336"
    weights: str | Path | None = None
    image_size: int | None = None
    checkpoint: str | Path | None = None
    preset: str | None = None
    device: str = "auto"
    overrides: Overrides = None
    precision: str = "auto"
    engine: str = "auto"
    offline: bool = False
    untrained: bool = False
    seed: int = 0
    activation: str = "auto"
    tiles: int | str | None = None
    keep_aspect: bool = False

    def of_backbone(self) -> dict[str, Any]:
        """The values of ``backbone.*`` that have a parameter of their own."""
        return {
            "name": self.backbone,
            "weights": str(self.weights) if self.weights else None,
            "image_size": self.image_size,
            "precision": self.precision,
            "engine": self.engine,
            "activation": self.activation,
        }


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Pictures without labels, and what is to be done with them; see
    :func:`zsad.api.predict_iter`."""

    method: str
    pictures: Paths
    class_name: str
    calibrate: Paths | None = None
    false_alarms: float | None = None
    out: str | Path | None = None
    threshold: float | None = None
    image_threshold: float | None = None
    scale: tuple[float, float] | None = None
    ignore: str | Path | None = None
    save: str | Sequence[str] | None = None
    to: str | Sequence[str] | None = None
    references: Paths = ()
    explanations: int = 5
    listed: Sequence[str] = ()
    plugins: str | Path | None = None
    overrides: Overrides = None
    bank: str | Path | None = None
    save_bank: str | Path | None = None
    one_file: bool = False
    kind: str | None = None
    domain: str | None = None

    @property
    def facts(self) -> dict[str, str]:
        """Kind and domain of what the pictures show, where they are given."""
        told = (("kind", self.kind), ("domain", self.domain))
        return {what: value for what, value in told if value is not None}

    @property
    def normal(self) -> list[str]:
        """What sets thresholds: normal pictures, or the file of an earlier calibration."""
        return words(self.calibrate) if self.calibrate else []

    @property
    def is_calibrated(self) -> bool:
        """Whether thresholds come from the ``calibration.json`` of an earlier run."""
        return len(self.normal) == 1 and self.normal[0].lower().endswith(".json")


def chosen(
    text: str | Sequence[str], option: str, what: str, known: Sequence[str], out: Path | str | None
) -> tuple[str, ...]:
    """The names that an ``option`` of files in ``out`` lists, by commas or one by one; each once.

    ``what``: what they are names of, in the singular and the plural: "format, formats".
    Raises :class:`RequestError` for an unknown one, for none at all, and without ``out``.
    """
    singular, _, plural = what.partition(", ")
    listed = text.split(",") if isinstance(text, str) else list(text)
    names = tuple(dict.fromkeys(n.strip() for n in listed if n.strip()))
    for name in names:
        if name not in known:
            raise unknown(singular, name, known, f"give {option} a list of them")
    if not names:
        raise RequestError(f"{option}: names nothing; {plural}: {', '.join(known)}")
    if out is None:
        raise RequestError(f"{option} {','.join(names)}: needs --out DIR")
    return names


def words(value: Paths) -> list[str]:
    """One path, or several, as a list of words."""
    return [str(v) for v in ([value] if isinstance(value, (str, Path)) else value)]
