"""What the feature store saves in training: seconds per epoch without and with it.

    python -m zsad.benchmarks.speed.training [--backbone NAME] [--methods NAMES] [--images N]
                                        [--epochs N] [--quick] [--json]

Trains the same methods twice on the same pictures of ``synthetic``: once with a store that holds
nothing, so that every epoch decodes and encodes its images, and once with one that holds all.
Both print their epochs; the ratio is the mean of epochs two and later.  The last columns say how
many images the encoder saw and how far the two trained states lie apart (without a store images
are encoded one by one, with it in groups, so sums round differently).  ``--backbone`` runs with
random weights unless it is bundled: only time is measured.  ``--quick``: a few images, two epochs.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from typing import Any

import torch

from zsad import backbones, checkpoints, registry
from zsad.config import BackboneSettings, RunSettings, Settings
from zsad.data import splits
from zsad.data.index import load_index
from zsad.method import new_method
from zsad.training import FitOptions, fit
from zsad.training.feature_store import FeatureStore


class EpochClock:
    """Wall-clock seconds of every epoch, encoding included; told about every step."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}
        self._last = time.perf_counter()

    def __call__(self, step: Any) -> None:
        now = time.perf_counter()
        key = (step.method, step.epoch)
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._last
        self._last = now


def measure(options: argparse.Namespace, keep: bool) -> dict[str, Any]:
    """Train all methods and return seconds per epoch, images encoded and the trained states."""
    weights = options.weights or (None if options.backbone == "zsad-tiny" else "random")
    backbone = backbones.load(options.backbone, weights=weights, device=options.device)
    index = load_index("synthetic")
    samples = splits.auxiliary(index, "test")
    samples = samples[:: max(1, len(samples) // options.images)][: options.images]
    settings = Settings(
        backbone=BackboneSettings(name=options.backbone), run=RunSettings(deterministic=False)
    )
    methods = []
    for name in options.methods.split(","):
        entry = registry.method(name)
        config = entry.resolve(("benchmark", {"train": {"epochs": options.epochs}}))
        methods.append(new_method(entry, config, backbone.info, 0))
    clock = EpochClock()
    budget = int(options.gigabytes * (1 << 30)) if keep else 0
    with tempfile.TemporaryDirectory() as folder, FeatureStore(host_bytes=budget) as store:
        results = fit(
            methods,
            index,
            backbone,
            settings=settings,
            seed=0,
            out_dir=folder,
            samples=samples,
            store=store,
            options=FitOptions(logger="none", progress=clock),
        )
        states = [checkpoints.load_any(r.checkpoint).state for r in results]
    epochs = [
        sum(s for (_, e), s in clock.seconds.items() if e == epoch)
        for epoch in range(1, options.epochs + 1)
    ]
    return {"epochs": epochs, "images_encoded": backbone.counters.images, "states": states}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run both ways and put them side by side."""
    without, with_store = measure(options, keep=False), measure(options, keep=True)
    later = [sum(run["epochs"][1:]) / (options.epochs - 1) for run in (without, with_store)]
    difference = max(
        float((a[k] - b[k]).norm() / a[k].norm().clamp(min=1e-12))
        for a, b in zip(without.pop("states"), with_store.pop("states"))
        for k in a
    )
    return {
        "conditions": {
            "backbone": options.backbone,
            "methods": options.methods,
            "images": options.images,
            "device": options.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
        "without": without,
        "with": with_store,
        "later_epochs_seconds": {"without": later[0], "with": later[1]},
        "ratio": later[0] / later[1],
        "relative_difference": difference,
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="zsad-tiny")
    parser.add_argument("--weights", help="a state dict; default: bundled, else random")
    parser.add_argument("--methods", default="faprompt,anomalyclip")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="host memory of the store")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.epochs = min(options.images, 16), 2
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first one fills the store")
    torch.set_num_threads(options.threads)
    document = compare(options)
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(", ".join(f"{k} {v}" for k, v in document["conditions"].items()))
    print(f"{'':14}{'images encoded':>16}  seconds per epoch")
    for name in ("without", "with"):
        row = document[name]
        seconds = " ".join(f"{s:8.2f}" for s in row["epochs"])
        print(f"{name + ' store':14}{row['images_encoded']:16}  {seconds}")
    print(f"epochs two and later: {document['ratio']:.1f} times faster with the store")
    print(f"relative difference of the trained states: {document['relative_difference']:.1e}")
    return document


if __name__ == "__main__":
    main()
