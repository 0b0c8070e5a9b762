"""Carries out a request: load the backbone, plan, run, write the manifest, return the document."""

from __future__ import annotations

from typing import Any

from zsad.errors import CellError
from zsad.results.document import document
from zsad.results.store import ResultStore
from zsad.runner.logs import logged
from zsad.runner.manifest import Finished, manifest
from zsad.runner.options import BenchOptions
from zsad.runner.plan import build_plan
from zsad.runner.progress import SweepProgress
from zsad.runner.request import Request, request_of, require_writable


def bench(options: BenchOptions) -> dict[str, Any]:
    """Run a sweep and return its JSON document (of the plan alone for ``dry_run``)."""
    request = request_of(options, options.methods, options.datasets)
    launcher, progress = options.launcher, options.progress
    store = ResultStore(request.results)
    if launcher == "ray":
        from zsad.runner.ray import cluster, driver

        cluster.require_ray()
    if options.dry_run:
        from zsad.backbones.locate import identify

        weights_id, demo = identify(
            request.settings.backbone.name, request.settings.backbone.weights
        )
        return build_plan(request, store, weights_id, demo).describe()

    require_writable(request.results)
    with logged(request.results):
        if launcher == "ray":
            finished = driver.run(request, store, progress=progress)
        else:
            finished = _run_here(request, store, progress)
    plan, cells = finished.plan, finished.plan.results(store)
    result = document(cells, plan.unplanned, store, finished.counters, finished.seconds)
    try:
        store.write_manifest(manifest(finished))
    except CellError as error:  # the cells are stored; that their origin is not must be said
        result["failed"].append({"cell": {"file": "manifest.json"}, "error": str(error)})
    return result


def _run_here(request: Request, store: ResultStore, progress: bool) -> Finished:
    """Run everything in this process."""
    import torch

    from zsad.backbones.devices import choose_device, device_account
    from zsad.runner.heads import load_backbone
    from zsad.runner.sweep import Sweep

    device = choose_device(request.device)
    if request.settings.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    backbone = load_backbone(request, device)
    plan = build_plan(request, store, backbone.info.weights_sha256, backbone.info.demo)
    with SweepProgress(plan, shown=progress) as bar:
        sweep = Sweep(plan, backbone, store, device, on_progress=bar.images, on_event=bar.event)
        sweep.run()
    counters = {
        **backbone.counters.as_dict(),
        "cells_run": sweep.done,
        "batch_sizes": sorted(sweep.batch_sizes),
        **sweep.account(),
    }
    return Finished(plan, backbone.info, device_account(device), counters, sweep.seconds)
