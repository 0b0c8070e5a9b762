"""What a run leaves besides its cells: what was asked for, on what it ran, with what."""

from __future__ import annotations

import datetime
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zsad import __version__
from zsad import config as cfg
from zsad.runner.plan import Plan
from zsad.runner.request import Request
from zsad.types import BackboneInfo


@dataclass(frozen=True)
class Finished:
    """A plan that was run, with what the run did and on what."""

    plan: Plan
    backbone: BackboneInfo
    device: dict[str, Any]
    counters: dict[str, Any]
    seconds: dict[str, float]


def _rows(request: Request) -> dict[str, dict[str, Any]]:
    """What rows of the protocol have of their own, beside their configs; nothing for most."""
    found = {}
    for column in request.columns:
        own = {
            "image_size": request.settings_of(column).backbone.image_size,
            "train_part": request.settings_of(column).data.train_part,
            "seeds": list(request.seeds_of(column)),
            "trained_on": column.trained_on,
        }
        usual = {
            "image_size": request.settings.backbone.image_size,
            "train_part": request.settings.data.train_part,
            "seeds": list(request.seeds),
            "trained_on": "",
        }
        if differs := {k: v for k, v in own.items() if v != usual[k]}:
            found[column.label] = differs
    return found


def together(runs: Sequence[Finished]) -> tuple[dict[str, Any], dict[str, float]]:
    """Counters and seconds of a sweep, over the backbones that it was run with.

    Counts are sums, peaks the largest one, and images a second those of all images in all of the
    time."""
    if len(runs) == 1:
        return runs[0].counters, runs[0].seconds
    counters: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    wall, images = 0.0, 0
    for run in runs:
        for stage, spent in run.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        rate = run.counters.get("images_per_second")
        if rate:
            images += run.counters.get("images", 0)
            wall += run.counters.get("images", 0) / rate
        for key, value in run.counters.items():
            if key == "batch_sizes":
                counters[key] = sorted({*counters.get(key, ()), *value})
            elif key == "peak_memory_mib":
                counters[key] = max(counters.get(key, 0), value)
            elif key != "images_per_second":
                counters[key] = counters.get(key, 0) + value
    if wall:
        counters["images_per_second"] = round(images / wall, 3)
    return counters, seconds


def head() -> dict[str, str]:
    """What every entry of the manifest begins with: a name of its own, and when it was made."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"id": uuid.uuid4().hex[:12], "finished": now.isoformat(timespec="seconds")}


def manifest(run: Finished) -> dict[str, Any]:
    """Everything needed to say where the numbers of this run come from."""
    import numpy
    import torch

    from zsad.torchvision_compat import open_clip

    plan, request, info = run.plan, run.plan.request, run.backbone
    options = request.options.record()
    return {
        **head(),
        "versions": {
            "zsad": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "numpy": numpy.__version__,
        },
        "device": run.device,
        "launcher": options["launcher"],
        "request": {
            **options,
            "methods": [c.label for c in request.columns],
            "datasets": list(request.datasets),
            "protocol": request.protocol.name,
            "seeds": list(request.seeds),
            "limit": request.limit,
            "untrained": request.untrained,
        },
        "settings": cfg.to_dict(request.settings),
        "rows": _rows(request),
        "configs": {c.label: cfg.to_dict(c.config) for c in request.columns},
        # where a paper leaves something open: what was chosen, by methods that mark it
        "own_readings": {
            c.label: readings for c in request.columns if (readings := c.config.own_readings())
        },
        "backbone": {
            "name": info.name,
            "weights_source": info.weights_source,
            "weights_sha256": info.weights_sha256,
            "weights_grade": info.weights_grade,
            "weights_name": info.weights_name,
            "banner": info.banner,
            "image_size": info.image_size,
        },
        "datasets": {
            d.name: {
                "variant": d.index.variant,
                "fingerprint": d.index.fingerprint,
                "images": {c: len(s) for c, s in d.samples.items()},
            }
            for d in plan.datasets
        },
        "counters": run.counters,
        "seconds": {k: round(v, 3) for k, v in run.seconds.items()},
    }
