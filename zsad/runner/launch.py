"""Carries out a request: load the backbone, plan, run, write the manifest, return the document."""

from __future__ import annotations

import datetime
import platform
import uuid
from dataclasses import dataclass
from typing import Any

from zsad import __version__
from zsad import config as cfg
from zsad.errors import CellError
from zsad.runner.document import document
from zsad.runner.logs import logged
from zsad.runner.options import BenchOptions
from zsad.runner.plan import Plan, build_plan
from zsad.runner.progress import Progress
from zsad.runner.request import Request, request_of, require_writable
from zsad.store import ResultStore
from zsad.types import BackboneInfo


@dataclass(frozen=True)
class Finished:
    """A plan that was run, with what the run did and on what."""

    plan: Plan
    backbone: BackboneInfo
    device: dict[str, Any]
    counters: dict[str, Any]
    seconds: dict[str, float]


def bench(options: BenchOptions) -> dict[str, Any]:
    """Run a sweep and return its JSON document (of the plan alone for ``dry_run``)."""
    request = request_of(options, options.methods, options.datasets)
    launcher, progress = options.launcher, options.progress
    store = ResultStore(request.results)
    if launcher == "ray":
        from zsad.runner import launch_ray, ray_cluster

        ray_cluster.require_ray()
    if options.dry_run:
        from zsad.backbones.specs import identify

        weights_id, demo = identify(
            request.settings.backbone.name, request.settings.backbone.weights
        )
        return build_plan(request, store, weights_id, demo).describe()

    require_writable(request.results)
    with logged(request.results):
        if launcher == "ray":
            finished = launch_ray.run(request, store, progress=progress)
        else:
            finished = _run_here(request, store, progress)
    result = document(finished.plan, store, finished.counters, finished.seconds)
    try:
        store.write_manifest(manifest(finished))
    except CellError as error:  # the cells are stored; that their origin is not must be said
        result["failed"].append({"cell": {"file": "manifest.json"}, "error": str(error)})
    return result


def _run_here(request: Request, store: ResultStore, progress: bool) -> Finished:
    """Run everything in this process."""
    import torch

    from zsad.backbones.devices import choose_device, device_account
    from zsad.runner.execute import Sweep, load_backbone

    device = choose_device(request.device)
    if request.settings.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    backbone = load_backbone(request, device)
    plan = build_plan(request, store, backbone.info.weights_sha256, backbone.info.demo)
    with Progress(plan, shown=progress) as bar:
        sweep = Sweep(plan, backbone, store, device, on_progress=bar.images, on_event=bar.event)
        sweep.run()
    counters = {
        **backbone.counters.as_dict(),
        "cells_run": sweep.done,
        "batch_sizes": sorted(sweep.batch_sizes),
        **sweep.account(),
    }
    return Finished(plan, backbone.info, device_account(device), counters, sweep.seconds)


def manifest(run: Finished) -> dict[str, Any]:
    """Everything needed to say where the numbers of this run come from."""
    import numpy
    import torch

    from zsad.torchvision_compat import open_clip

    plan, request, info = run.plan, run.plan.request, run.backbone
    options = request.options.record()
    return {
        "id": uuid.uuid4().hex[:12],
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
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
        "configs": {c.label: cfg.to_dict(c.config) for c in request.columns},
        # where a paper leaves something open: what was chosen, by methods that mark it
        "own_readings": {
            c.label: readings for c in request.columns if (readings := c.config.own_readings())
        },
        "backbone": {
            "name": info.name,
            "weights_source": info.weights_source,
            "weights_sha256": info.weights_sha256,
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
