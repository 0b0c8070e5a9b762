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
from zsad.runner.estimate import estimate
from zsad.runner.given import check as check_given
from zsad.runner.logs import logged, tell_accounts
from zsad.runner.lower_precision import calibrations, drift
from zsad.runner.manifest import Finished, manifest, together
from zsad.runner.options import BenchOptions
from zsad.runner.plan import Plan, build_plan, describe
from zsad.runner.progress import SweepProgress
from zsad.runner.request import Request, request_of, require_results

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
    parts = request.parts()
    if options.dry_run:
        plans = [_planned(part, store) for part in parts]
        rows = [r for p in plans for r in conditions.described(p)]
        return {**describe(plans), "rows": rows, "estimate": estimate(plans, rows, store)}

    _require_boxes(request)
    require_results(request.results)
    finished: list[Finished] = []
    with logged(request.results):
        for part in parts:
            if launcher == "ray":
                done = driver.run(part, store, progress=progress, first=part is parts[0])
            else:
                done = _run_here(part, store, progress, also, first=part is parts[0])
            finished.append(done)
    plan = finished[0].plan  # what is said of datasets holds for every backbone
    cells = [cell for one in finished for cell in one.plan.results(store)]
    counters, seconds = together(finished)
    result = document(cells, plan.unplanned, store, counters, seconds)
    if request.protocol.ablation and not request.untrained:
        result["failed"] += _without_effect(request, finished, store)
    result["accounts"] = {name: a.document() for name, a in plan.accounts().items()}
    result["missing"] = plan.missing()
    result["drift"] = []
    for one in finished:
        off = drift(one.plan, store)
        result["drift"] += off
        calibrated = calibrations(one.plan, store)
        more = {"drift": off, "calibrations": calibrated}
        try:
            store.write_manifest({**manifest(one), **{k: v for k, v in more.items() if v}})
        except CellError as error:  # the cells are stored; that their origin is not must be said
            result["failed"].append({"cell": {"file": "manifest.json"}, "error": str(error)})
    return result


def _planned(request: Request, store: ResultStore) -> Plan:
    """The plan of a part whose backbone is not loaded."""
    from zsad.backbones.locate import identify

    backbone = request.settings.backbone
    weights_id, demo = identify(backbone.name, backbone.weights)
    return build_plan(request, store, weights_id, demo)


def _require_boxes(request: Request) -> None:
    """Raise where the protocol's boxes can come from nowhere, or named weights cannot be read."""
    from zsad.grounding.provider import require

    of_rows = {row.stored: row.boxes for row in request.protocol.rows}
    for column in request.columns:
        needed = (of_rows.get(column.label) or request.protocol.boxes) == "required"
        asked_by = f"protocol {request.protocol.name}" if needed else ""
        options = cfg.to_dict(column.config).get("grounding")
        if isinstance(options, dict):
            require(options, request.datasets, column.entry.name, asked_by)


def _without_effect(
    request: Request, finished: Sequence[Finished], store: ResultStore
) -> list[dict[str, Any]]:
    """Rows of an ablation that changed no map and no score; they are stored like the others."""
    rows: dict[str, dict[Place, CellRecord]] = {}
    for key, _ in (cell for one in finished for cell in one.plan.cells()):
        if store.has(key):
            place = key.dataset, key.category, key.seed
            rows.setdefault(key.method, {})[place] = store.get(key)
    return [
        {
            "cell": {"method": label},
            "error": f"its switch changed neither map nor score of any image: equal to {other}",
            "stored": True,
        }
        for label, other in without_effect(store, rows, _meant(request))
    ]


def _meant(request: Request) -> dict[str, dict[str, Any]]:
    """The config of every row as the protocol has it, by label and dotted key."""
    found = {}
    for row in request.protocol.rows:
        entry = registry.method(row.method)
        layers = [request.protocol.overrides.get(row.method) or {}, row.layer]
        plain = [("row", {k: v for k, v in x.items() if k != "checkpoint"}) for x in layers]
        found[row.stored] = cfg.flat(cfg.identity(entry.resolve(*plain)))
    return found


def _run_here(
    request: Request, store: ResultStore, progress: bool, also: OnScored | None, first: bool
) -> Finished:
    """Run everything of one backbone in this process."""
    from zsad.backbones.devices import choose_device, deterministically, device_account
    from zsad.runner.heads import load_backbone
    from zsad.runner.sweep import Sweep

    device = choose_device(request.device)
    with deterministically(request.settings.run.deterministic, device):
        backbone = load_backbone(request, device)
        plan = build_plan(request, store, backbone.info.weights_sha256, backbone.info.demo)
        plan.image_size = backbone.info.image_size
        if first:  # files are the same for every backbone
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
