"""WinCLIP and pixel metrics beside anomalib's, on the same images, weights and maps.

    python -m zsad.benchmarks.speed.anomalib [--quick] [--repeats 3] [--clock cpu] [--json]

anomalib must be installed beside zsad (``pip install 'anomalib[clip]'``); written against its
version 2.7.  WinCLIP: one random picture through anomalib's ``WinClipModel`` and through ours,
score and map, by every engine that is here; both have the same random weights, and how far our
embeddings of picture and windows are from anomalib's is printed.  Metrics: AUPRO by anomalib, AUROC
and AP by torchmetrics, one after the other, beside all seven of ours, in bins and exactly.

The ways take turns; ratios are taken within a turn.  ``--quick``: few maps, small ones.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import zsad
from zsad import metrics
from zsad.backbones.engines import processor
from zsad.backbones.engines.verification import pictures
from zsad.benchmarks.speed import measure
from zsad.benchmarks.speed.metrics import batches
from zsad.inference.loaded_method import LoadedMethod
from zsad.types import FeatureRequest, Tap

BACKBONE = "vit-b-16-plus-240"
NAME = "metal nut"
THEIRS = "anomalib"
SCALES = (2, 3)


def ours(engine: str, precision: str) -> LoadedMethod:
    """WinCLIP with random weights, the same ones in every call."""
    words = [f"backbone.engine={engine}", f"backbone.precision={precision}"]
    found: LoadedMethod = zsad.load_method("winclip", BACKBONE, weights="random", overrides=words)
    return found


def theirs(one: LoadedMethod) -> Any:
    """anomalib's model with the weights of ours, without its download."""
    module: Any = importlib.import_module("anomalib.models.image.winclip.torch_model")
    module.PRETRAINED = None
    model = module.WinClipModel(scales=SCALES).eval()
    model.clip.load_state_dict(one.backbone.model.state_dict(), strict=False)
    model.setup(NAME)
    return model


@torch.no_grad()
def measure_winclip(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of one picture, by way."""
    facts = processor.facts()
    asked = [("torch", "fp32")]
    if facts.openvino:
        asked.append(("openvino", "fp32"))
        asked += [("openvino", "bf16")] if facts.bf16 else []
    methods = {
        f"zsad, {engine} {precision}": ours(engine, precision) for engine, precision in asked
    }
    first = next(iter(methods.values()))
    model, image = theirs(first), pictures(240)[:1]
    ways: dict[str, Callable[[], Any]] = {THEIRS: lambda: model(image)}
    for name, one in methods.items():
        one.pictures.expect(1)
        ways[name] = functools.partial(one.predict_tensor, image, NAME, explanations=0)
    for way in ways.values():
        way()
    seconds = measure.interleaved(ways, options.repeats, "cpu", options.clock)
    return {
        "seconds_per_image": {k: measure.spread(v) for k, v in seconds.items()},
        "times_faster": {k: measure.ratio(seconds[THEIRS], v) for k, v in seconds.items()},
        "embeddings_apart": apart(model, first, image),
    }


def apart(model: Any, one: LoadedMethod, image: Tensor) -> dict[str, float]:
    """Relative distance between anomalib's embeddings and ours, by tap.

    With an open_clip that anomalib does not allow (it asks for one below 2.26.1; later ones take
    the batch first) its windows attend to each other and are far from ours; the picture is not.
    """
    whole, windows, _ = model.encode_image(image)
    taps = {"picture": Tap("cls"), **{f"windows of {k}": Tap("window", k) for k in SCALES}}
    found = one.backbone.encode_image(image, FeatureRequest.of(*taps.values()))
    pairs = zip(taps.items(), [whole, *windows], strict=True)
    return {name: float((a - found[tap]).norm() / a.norm()) for (name, tap), a in pairs}


def measure_metrics(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one image of a category, by metric and by all of ours."""
    (maps, masks, scores, labels), *_ = batches(options.maps, options.maps, options.side)
    curves = importlib.import_module("torchmetrics.classification")
    batch = SimpleNamespace(maps=maps, masks=masks.int())

    def regions() -> Any:
        held = importlib.import_module("anomalib.metrics").AUPRO(fields=["maps", "masks"])
        held.update(batch)
        return held.compute()

    def by(metric: Any) -> Any:
        metric.update(maps, batch.masks)
        return metric.compute()

    def all_of(mode: Any) -> dict[str, float | None]:
        held = metrics.CategoryMetrics(mode)
        held.update(maps, masks, scores, labels)
        return held.compute().metrics

    ways: dict[str, Callable[[], Any]] = {
        "anomalib, AUPRO": regions,
        "torchmetrics, AUROC": lambda: by(curves.BinaryAUROC()),
        "torchmetrics, AP": lambda: by(curves.BinaryAveragePrecision()),
        "zsad, seven metrics in bins": lambda: all_of("binned"),
        "zsad, seven metrics exactly": lambda: all_of("exact"),
    }
    values = {name: way() for name, way in ways.items()}
    exact = list(values.values())[-1]
    wanted = ("pixel_aupro", "pixel_auroc", "pixel_ap")
    pairs = list(zip(list(values.values())[:3], [exact[k] for k in wanted], strict=True))
    seconds = measure.interleaved(ways, options.repeats, "cpu", options.clock)
    return {
        "milliseconds_per_image": {
            name: measure.spread([1000 * s / options.maps for s in held])
            for name, held in seconds.items()
        },
        "values_apart": max(abs(float(a) - float(b)) for a, b in pairs),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it from the command line; exit code 2 where anomalib is not installed."""
    parser = measure.options(__doc__)
    parser.add_argument("--maps", type=int, default=32, help="of the category")
    parser.add_argument("--side", type=int, default=518, help="pixels of a map")
    parser.add_argument("--only", choices=("winclip", "metrics"), help="one part")
    parser.add_argument("--quick", action="store_true", help="4 maps of 64 pixels")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("anomalib") is None:
        print("anomalib is not installed; `pip install 'anomalib[clip]'`", file=sys.stderr)
        raise SystemExit(2)
    if options.quick:
        options.maps, options.side = 4, 64
    torch.set_num_threads(options.threads)
    document = {
        "conditions": measure.conditions(
            "cpu",
            engine="as named",
            backbone=BACKBONE,
            maps=f"{options.maps} of {options.side} px",
            repeats=options.repeats,
            clock=options.clock,
            open_clip=importlib.metadata.version("open_clip_torch"),
            anomalib=importlib.import_module("anomalib").__version__,
            openvino=processor.version("openvino") or "absent",
            peak_gmac_per_second={
                k: round(v / 1e9, 1) for k, v in measure.peaks(options.clock).items()
            },
        )
    }
    if options.only != "metrics":
        document["winclip"] = measure_winclip(options)
    if options.only != "winclip":
        document["metrics"] = measure_metrics(options)
    print(json.dumps(document, indent=2) if options.json else told(document))
    return document


def told(document: dict[str, Any]) -> str:
    """The document as text."""
    lines = [measure.headline(document["conditions"])]
    if found := document.get("winclip"):
        for name, spread in found["seconds_per_image"].items():
            times = measure.shown(found["times_faster"][name])
            lines.append(f"{name:>28}: {measure.shown(spread)} s an image, {times} times faster")
        off = ", ".join(f"{name} {value:.1e}" for name, value in found["embeddings_apart"].items())
        lines.append(f"embeddings apart: {off}")
    if found := document.get("metrics"):
        for name, spread in found["milliseconds_per_image"].items():
            lines.append(f"{name:>28}: {measure.shown(spread, digits=1)} ms an image")
        lines.append(f"values {found['values_apart']:.1e} apart")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
