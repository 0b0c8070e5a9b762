"""Carries out a request: load the backbone, plan, run, write the manifest, return the document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zsad import config as cfg
from zsad import registry
from zsad.errors import CellError
from zsad.results.document import document
from zsad.results.effect import Place, without_effect
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner import conditions
from zsad.runner.given import check as check_given
from zsad.runner.logs import logged, tell_accounts
from zsad.runner.manifest import Finished, manifest
from zsad.runner.options import BenchOptions
from zsad.runner.plan import build_plan
from zsad.runner.progress import SweepProgress
from zsad.runner.request import Request, request_of, require_writable

if TYPE_CHECKING:
    from zsad.runner.heads import Head
    from zsad.types import Sample, Scored

# (dataset, head, samples, scored): what looks at every scored batch
OnScored = Callable[[str, "Head", Sequence["Sample"], "Scored[Any]"], None]


def bench(options: BenchOptions, also: OnScored | None = None) -> dict[str, Any]:
    """Run a sweep and return its JSON document (of the plan alone for ``dry_run``).

    ``also``: looks at every scored batch of a local run, beside what is stored of it.
    """
    request = request_of(options, options.methods, options.datasets)
    check_given(request)
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
        plan = build_plan(request, store, weights_id, demo)
        return {**plan.describe(), "rows": conditions.described(plan)}

    _require_boxes(request)
    require_writable(request.results)
    with logged(request.results):
        if launcher == "ray":
            finished = driver.run(request, store, progress=progress)
        else:
            finished = _run_here(request, store, progress, also)
    plan, cells = finished.plan, finished.plan.results(store)
    result = document(cells, plan.unplanned, store, finished.counters, finished.seconds)
    if request.protocol.ablation and not request.untrained:
        result["failed"] += _without_effect(finished, store)
    result["accounts"] = {name: a.document() for name, a in plan.accounts().items()}
    result["missing"] = plan.missing()
    try:
        store.write_manifest(manifest(finished))
    except CellError as error:  # the cells are stored; that their origin is not must be said
        result["failed"].append({"cell": {"file": "manifest.json"}, "error": str(error)})
    return result


def _require_boxes(request: Request) -> None:
    """Raise where the protocol's boxes can come from nowhere, or named weights cannot be read."""
    from zsad.grounding.provider import require

    needed = request.protocol.boxes == "required"
    asked_by = f"protocol {request.protocol.name}" if needed else ""

    for column in request.columns:
        options = cfg.to_dict(column.config).get("grounding")
        if isinstance(options, dict):
            require(options, request.datasets, column.entry.name, asked_by)


def _without_effect(finished: Finished, store: ResultStore) -> list[dict[str, Any]]:
    """Rows of an ablation that changed no map and no score; they are stored like the others."""
    rows: dict[str, dict[Place, CellRecord]] = {}
    for key, _ in finished.plan.cells():
        if store.has(key):
            place = key.dataset, key.category, key.seed
            rows.setdefault(key.method, {})[place] = store.get(key)
    return [
        {
            "cell": {"method": label},
            "error": f"its switch changed neither map nor score of any image: equal to {other}",
            "stored": True,
        }
        for label, other in without_effect(store, rows, _meant(finished.plan.request))
    ]


def _meant(request: Request) -> dict[str, dict[str, Any]]:
    """The config of every row as the protocol has it, by label and dotted key."""
    found = {}
    for row in request.protocol.rows:
        entry = registry.method(row.method)
        layers = [request.protocol.overrides.get(row.method) or {}, row.overrides]
        plain = [("row", {k: v for k, v in x.items() if k != "checkpoint"}) for x in layers]
        found[f"{row.method}@{row.slug}"] = cfg.flat(cfg.identity(entry.resolve(*plain)))
    return found


def _run_here(
    request: Request, store: ResultStore, progress: bool, also: OnScored | None
) -> Finished:
    """Run everything in this process."""
    from zsad.backbones.devices import choose_device, device_account, make_deterministic
    from zsad.runner.heads import load_backbone
    from zsad.runner.sweep import Sweep

    device = choose_device(request.device)
    make_deterministic(request.settings.run.deterministic, device)
    backbone = load_backbone(request, device)
    plan = build_plan(request, store, backbone.info.weights_sha256, backbone.info.demo)
    plan.image_size = backbone.info.image_size
    tell_accounts(plan)
    conditions.tell(plan)
    with SweepProgress(plan, shown=progress) as bar:
        sweep = Sweep(
            plan,
            backbone,
            store,
            device,
            on_progress=bar.images,
            on_event=bar.event,
            on_scored=also,
        )
        sweep.run()
    counters = {
        **backbone.counters.as_dict(),
        "cells_run": sweep.done,
        "batch_sizes": sorted(sweep.batch_sizes),
        **sweep.account(),
    }
    return Finished(plan, backbone.info, device_account(device), counters, sweep.seconds)
