"""The whole of ``zsad bench`` on the bundled backbone: images a second, and where they go.

    python -m zsad.benchmarks.speed.pipeline [--quick] [--threads 2] [--limit 32] [--json]

Runs ``zsad.bench`` on ``synthetic`` with learned methods in their initial state, once per set of
methods in every turn: files are decoded, images encoded once, every method scores, maps are
built, metrics computed, records and pictures written.  ``images/s`` is over the whole call but
loading the backbone and the first import; ``steady images/s`` leaves out what a run pays once per
dataset (fixed texts), as a dataset of a few thousand images would.  ``encoder forwards`` says how
many batches the encoder saw for all methods together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import zsad
from zsad import registry
from zsad.benchmarks.speed import measure

SETS = {
    "four": "filo,faprompt,kanoclip,anomalyclip",
    "no windows": "filo,faprompt,kanoclip,anomalyclip,clip,coop,cocoop,maskclip,anovl,aprilgan",
    "all": "all",
}
STAGES = ("decode", "encode", "head", "map", "metrics", "text")


def run(methods: str, options: argparse.Namespace) -> dict[str, Any]:
    """One sweep: seconds in all and by stage, images and forwards."""
    overrides = [f"data.workers={options.workers}", f"backbone.precision={options.precision}"]
    if methods == "all" or "filo" in methods.split(","):
        overrides.append("filo.grounding=none")
    if options.batch:
        overrides.append(f"run.batch_size={options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        document = zsad.bench(
            methods,
            options.dataset,
            backbone="zsad-tiny",
            results=folder,
            untrained=any(e.trained for e in registry.select_methods(methods)),
            offline=True,
            limit=options.limit or None,
            device=options.device,
            overrides=overrides,
        )
        seconds = time.perf_counter() - start
    if document["failed"]:
        raise SystemExit(f"a cell failed: {document['failed'][0]['error']}")
    images = sum(
        cell["n_normal"] + cell["n_anomalous"]
        for cell in document["cells"]
        if cell["method"] == document["cells"][0]["method"]
    )
    return {
        "seconds": seconds,
        "images": images,
        "methods": len({c["method"] for c in document["cells"]}),
        "forwards": document["counters"]["image_forwards"],
        "stages": {s: document["seconds"].get(s, 0.0) for s in STAGES},
    }


def measure_sets(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per set of methods; the sets take turns."""
    chosen = {name: SETS.get(name, name) for name in options.sets.split(";")}
    run("clip", argparse.Namespace(**{**vars(options), "limit": 2}))  # imports, caches
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for _ in range(options.repeats):
        for name, methods in chosen.items():
            found[name].append(run(methods, options))
    rows = []
    for name, runs in found.items():
        images = runs[0]["images"]
        rows.append(
            {
                "set": name,
                "methods": runs[0]["methods"],
                "images": images,
                "encoder_forwards": runs[0]["forwards"],
                "images_per_second": measure.spread([images / r["seconds"] for r in runs]),
                "steady_images_per_second": measure.spread(
                    [images / (r["seconds"] - r["stages"]["text"]) for r in runs]
                ),
                "stage_seconds": {
                    s: measure.spread([r["stages"][s] for r in runs]) for s in STAGES
                },
                "metrics_share": measure.spread(
                    [r["stages"]["metrics"] / r["seconds"] for r in runs]
                ),
            }
        )
    return rows


def show(document: Mapping[str, Any]) -> None:
    """Print the document as text."""
    print(measure.headline(document["conditions"]))
    for row in document["sets"]:
        print(
            f"{row['set']}: {row['methods']} methods, {row['images']} images, "
            f"{row['encoder_forwards']} encoder forwards"
        )
        print(f"  images/s         {measure.shown(row['images_per_second'])}")
        print(f"  steady images/s  {measure.shown(row['steady_images_per_second'])}")
        print(f"  metrics, share   {measure.shown(row['metrics_share'], 100, 1)} %")
        for stage, values in row["stage_seconds"].items():
            print(f"  {stage:15}  {measure.shown(values, 1000 / row['images'], 1)} ms per image")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", default="four;no windows;all", help="names or methods, by ';'")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--limit", type=int, default=32, help="images per category; 0: all")
    parser.add_argument("--batch", type=int, default=0, help="images per forward; 0: estimated")
    parser.add_argument("--workers", type=int, default=1, help="decoding threads")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two images a category, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.quick:
        options.limit, options.repeats = 2, 1
    torch.set_num_threads(options.threads)
    document = {
        "conditions": measure.conditions(
            options.device,
            engine="auto",
            backbone="zsad-tiny",
            dataset=options.dataset,
            precision=options.precision,
            limit=options.limit or None,
            workers=options.workers,
            repeats=options.repeats,
        ),
        "sets": measure_sets(options),
    }
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        show(document)
    return document


if __name__ == "__main__":
    main()
