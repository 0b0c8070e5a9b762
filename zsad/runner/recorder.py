"""Writes what became of cells: records with their pictures, or failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zsad import config as cfg
from zsad.backbones.devices import device_account
from zsad.config import FolderSettings
from zsad.data.catalog import is_folder
from zsad.errors import ZsadError, reason
from zsad.metrics import CategoryMetrics, MetricResult
from zsad.results import examples
from zsad.results.examples import CellExamples
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner.heads import Head
from zsad.runner.outcome import Outcome
from zsad.runner.plan import DatasetPlan
from zsad.runner.request import Request
from zsad.scoring import Means
from zsad.types import BackboneInfo, Sample


class Recorder:
    """Writes the cells of one sweep.  ``done`` counts those that are stored."""

    def __init__(self, store: ResultStore, request: Request, backbone: BackboneInfo) -> None:
        self.store, self.request, self.backbone = store, request, backbone
        self.done = 0

    def put(
        self,
        dataset: DatasetPlan,
        outcome: Outcome,
        category: str,
        pictures: CellExamples,
        spent: Mapping[str, float],
    ) -> None:
        """Store one head's result of a category, for every seed that it stands for.

        ``spent``: seconds by stage, the stages of a head as ``stage:label``."""
        head, result = outcome.head, outcome.result
        assert result is not None
        scores: dict[str, Sequence[Any]] = {
            "uid": outcome.uids,
            "label": outcome.labels,
            "defect": outcome.defects,
            "score": outcome.scores,
            "path": outcome.uids,
            **outcome.pixels(),
        }
        shared = {k: v for k, v in spent.items() if ":" not in k and k in ("decode", "encode")}
        own = {k.split(":")[0]: v for k, v in spent.items() if k.endswith(f":{head.label}")}
        own["text"] = head.text_seconds
        for seed in head.seeds:
            key = dataset.todo.get((head.label, seed, category))
            if key is None:
                continue
            record = CellRecord(
                method=key.method,
                dataset=key.dataset,
                category=key.category,
                seed=key.seed,
                fingerprint=key.fingerprint,
                metrics=dict(result.metrics),
                undefined=dict(result.undefined),
                n_normal=result.n_normal,
                n_anomalous=result.n_anomalous,
                seconds={k: round(v, 4) for k, v in {**shared, **own}.items()},
                info={
                    **self.info(dataset, head, category),
                    **({"skipped": list(outcome.skipped)} if outcome.skipped else {}),
                    **self.ignored(dataset, outcome),
                    "method_info": self.method_info(head, category, outcome.means),
                    **_details(result),
                },
            )
            try:
                # The record comes last: what has a record has everything that belongs to it.
                examples.save(self.store.root, key, pictures)
                self.store.put(record, scores)
                self.done += 1
            except ZsadError as error:
                self.fail_cell(dataset, head.label, seed, category, error)

    def put_undefined(
        self, dataset: DatasetPlan, head: Head, category: str, samples: Sequence[Sample]
    ) -> None:
        """A few-shot method on a dataset without a training part: nothing failed, and there is
        nothing to measure."""
        metrics = CategoryMetrics.of(self.request.metrics_of(dataset.index.spec))
        anomalous = sum(s.label for s in samples)
        outcome = Outcome(head, metrics)
        outcome.result = MetricResult(
            dict.fromkeys(metrics.names),
            dict.fromkeys(metrics.names, "the dataset has no normal training images to refer to"),
            len(samples) - anomalous,
            anomalous,
        )
        self.put(dataset, outcome, category, CellExamples([]), {})

    def info(self, dataset: DatasetPlan, head: Head, category: str) -> dict[str, Any]:
        """What a record says of how its figures came about."""
        entry, backbone, boxes = head.column.entry, self.backbone, head.scorer.boxes
        # Of a checkpoint that was given, its own; else what was asked for, whatever the target.
        config = head.method.config if entry.trained else head.column.config
        return {
            "title": head.column.title,
            "method": entry.name,
            "group": entry.group,
            "trained": entry.trained,
            "transductive": entry.transductive or head.method.transductive,
            "untrained": entry.trained and self.request.untrained,
            "trained_on": head.trained_on,
            "preset": config.preset,
            "preset_title": entry.preset_titles.get(config.preset, ""),
            "revision": entry.revision,
            **({"source": source} if (source := entry.imported_digest) else {}),
            # What the fingerprint covers: a later key at its default is left out here as well, or
            # tables would part what was stored before and after the key came.
            "config": cfg.identity(config),
            "shots": head.method.shots,
            "backbone": backbone.name,
            "weights_source": backbone.weights_source,
            "weights_sha256": backbone.weights_sha256,
            "weights_grade": backbone.weights_grade,
            "weights_name": backbone.weights_name,
            "banner": backbone.banner,
            "image_size": head.request.variant.image_size,
            "pos_interp": head.request.variant.pos_interp,
            "activation": head.request.variant.activation,
            "precision": self.request.settings.backbone.figures,
            "engine": _engine(head),
            "protocol": self.request.protocol.name,
            "limit": self.request.limit,
            "variant": dataset.index.variant,
            "dataset_fingerprint": dataset.index.fingerprint,
            **({"missing_categories": list(missing)} if (missing := dataset.index.missing) else {}),
            "mask_resize": self.request.settings.data.mask_resize,
            **self.read_otherwise(dataset),
            "metrics": cfg.identity(self.request.metrics_of(dataset.index.spec)),
            **dataset.index.figure_rules,
            "boxes": boxes.account(dataset.name, category) if boxes else {},
        }

    def read_otherwise(self, dataset: DatasetPlan) -> dict[str, Any]:
        """What a record says of how a dataset is read, where a user said so: `data.names`, and of a
        folder `data.folder.*`; nothing for most."""
        data = self.request.settings.data
        found: dict[str, Any] = {} if data.names == "spoken" else {"names": data.names}
        if is_folder(dataset.index.spec):
            plain = cfg.to_dict(FolderSettings())
            said = {k: v for k, v in cfg.to_dict(data.folder).items() if v != plain[k]}
            found |= {"folder": said} if said else {}
        return found

    def ignored(self, dataset: DatasetPlan, outcome: Outcome) -> dict[str, Any]:
        """What a record says of pixels that are not looked at; nothing where all are."""
        text = dataset.index.ignore
        return {"ignore": text, "score_sees_ignored": outcome.sees_ignored} if text else {}

    def method_info(self, head: Head, category: str, means: Means) -> dict[str, Any]:
        """What the method says of itself: of its training, and of this category."""
        text = head.scorer.text.get(category)
        return {**head.method.facts, **head.method.run_info(text, means.figures())}

    # --------------------------------------------------------------------------- failure
    def fail_rest(self, dataset: DatasetPlan, error: Exception, only: str | None = None) -> None:
        """Fail what this run has not stored yet, of the category ``only`` if given."""
        for (label, seed, category), key in dataset.todo.items():
            if only in (None, category) and not dataset.is_done(self.store, key):
                self.fail_cell(dataset, label, seed, category, error)

    def fail(self, dataset: DatasetPlan, head: Head, category: str, error: Exception) -> None:
        """Fail one head on one category."""
        for seed in head.seeds:
            self.fail_cell(dataset, head.label, seed, category, error)

    def fail_cell(
        self, dataset: DatasetPlan, label: str, seed: int, category: str, error: Exception
    ) -> None:
        """Fail one cell, if it is one to do."""
        key = dataset.todo.get((label, seed, category))
        if key is None:
            return
        text = reason(error)
        if not isinstance(error, ZsadError):
            text = f"{label}: {text}"
        self.store.fail(key, text, type(error).__name__)


def _details(result: MetricResult) -> dict[str, Any]:
    """What a record's ``info`` says of single metrics: error bounds, and values per image in the
    order of its scores (of metrics that have them)."""
    per_image = {"metric_per_image": result.per_image} if result.per_image else {}
    return {"metric_bounds": dict(result.bounds), **per_image}


def _engine(head: Head) -> dict[str, Any]:
    """Who ran the encoder, with what it ran on: a GPU where it was one, whose times say nothing of
    the processor beside it."""
    backbone = head.scorer.backbone
    found = backbone.engines.account(head.request.variant) | head.scorer.heads.account()
    device = device_account(backbone.device)
    return found if device["kind"] == "cpu" else {**found, "processor": device["name"]}
