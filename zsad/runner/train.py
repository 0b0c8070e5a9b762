"""``zsad train``: make the checkpoints of trained methods, ahead of any evaluation."""

from __future__ import annotations

import logging
from typing import Any

from zsad.errors import RequestError, reason
from zsad.runner.plan import Auxiliary, auxiliary_samples
from zsad.runner.progress import TrainingProgress
from zsad.runner.request import Column, Request, require_writable

log = logging.getLogger(__name__)


def train(
    request: Request,
    *,
    devices: int | str = 1,
    strategy: str = "auto",
    logger: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Train every column of ``request`` on its one dataset, for every seed.

    Returns ``{"results_dir", "on", "checkpoints": [...], "failed": [...]}``.  What exists already
    is not trained again; what was killed goes on.  Raises :class:`RequestError` for training-free
    methods or more than one dataset.
    """
    import torch

    from zsad.runner.execute import choose_device, load_backbone
    from zsad.training import FitOptions

    if len(request.datasets) != 1:
        raise RequestError(f"--on {','.join(request.datasets)}: give one dataset to train on")
    free = [c.label for c in request.columns if not c.entry.trained]
    if free:
        raise RequestError(f"--methods: {', '.join(free)} is training-free; leave it out")
    require_writable(request.results)
    if request.settings.run.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    data = auxiliary_samples(request, request.datasets[0])
    backbone = load_backbone(request, choose_device(request.device))
    made: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with TrainingProgress(progress) as bar:
        options = FitOptions(devices=devices, strategy=strategy, logger=logger, progress=bar.step)  # type: ignore[arg-type]
        for seed in request.seeds:
            done, errors = _train_seed(request, data, backbone, seed, options)
            made += done
            failed += errors
    return {
        "results_dir": str(request.results),
        "on": {
            "dataset": data.dataset,
            "variant": data.index.variant,
            "part": data.part,
            "images": len(data.samples),
        },
        "checkpoints": made,
        "failed": failed,
        "counters": backbone.counters.as_dict(),
    }


def _train_seed(
    request: Request, data: Auxiliary, backbone: Any, seed: int, options: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train all columns together; if that fails, one by one, so that each keeps its own error."""
    from zsad.training import ensure_trained

    def ensure(columns: list[Column]) -> list[dict[str, Any]]:
        results = ensure_trained(
            [(c.entry, c.config) for c in columns],
            data.index,
            data.samples,
            backbone,
            settings=request.settings,
            seed=seed,
            root=request.results,
            part=data.part,
            options=options,
        )
        return [
            {
                "method": c.label,
                "seed": seed,
                "checkpoint": str(r.checkpoint),
                "seconds": round(r.seconds, 3),
                "reused": r.reused,
                "history": r.history,
            }
            for c, r in zip(columns, results)
        ]

    columns = list(request.columns)
    try:
        return ensure(columns), []
    except Exception as error:  # a method is foreign code, and so is the device
        if len(columns) == 1:
            return [], [_failure(columns[0], seed, error)]
    made, failed = [], []
    for column in columns:
        try:
            made += ensure([column])
        except Exception as error:
            failed.append(_failure(column, seed, error))
    return made, failed


def _failure(column: Column, seed: int, error: Exception) -> dict[str, Any]:
    log.debug("training %s failed", column.label, exc_info=error)
    return {"cell": {"method": column.label, "seed": seed}, "error": reason(error)}
