"""What made a prediction: for records, calibration files and heat maps, which travel alone."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from zsad import __version__
from zsad import config as cfg

if TYPE_CHECKING:
    from zsad.inference.loaded_method import LoadedMethod

UNTRAINED = "untrained method in its initial state; figures mean nothing"


def made_by(loaded: LoadedMethod, class_name: str) -> dict[str, Any]:
    """Method, configuration, weights, class name, version and time (UTC) of a run, ready for JSON.

    ``mark``: what has to be said wherever the result is shown (random, demonstration or unknown
    weights, an untrained method), or "".
    """
    info = loaded.backbone.info
    made_for = loaded.identity(class_name)
    marks = [info.banner, UNTRAINED if loaded.untrained else ""]
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "zsad": __version__,
        "method": loaded.method.name,
        "preset": loaded.method.config.preset,
        "config": cfg.identity(loaded.method.config),
        "revision": loaded.method.revision,
        "state": made_for.get("state"),
        **loaded.method.trained_from,
        "backbone": info.name,
        "weights": info.weights_sha256,
        "weights_source": info.weights_source,
        "weights_grade": info.weights_grade,
        "weights_name": info.weights_name,
        "image_size": loaded.image_size,
        "precision": loaded.backbone.figures,
        "engine": loaded.backbone.engines.account(loaded.request.variant),
        "class_name": made_for["class_name"],
        "time": now.isoformat(timespec="seconds"),
        "mark": "; ".join(m for m in marks if m),
    }
