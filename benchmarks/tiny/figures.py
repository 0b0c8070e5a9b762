"""Measures zsad-tiny as its model card states it: held-out group, seeds that training never saw.

    python -m zsad.benchmarks.tiny.figures [--methods clip,...] [--seeds 1,2,3] [--results DIR]

Prints Markdown: one row per method and seed, then the mean of the seeds by category.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import zsad

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_aupro": "pixel AUPRO",
}


def measure(methods: str, seeds: Iterable[int], results: Path) -> list[dict[str, Any]]:
    """The cells of ``methods`` on every seed of `synthetic`, each with its ``pictures`` seed."""
    cells = []
    for seed in seeds:
        document = zsad.bench(
            methods,
            "synthetic",
            backbone="zsad-tiny",
            results=results / f"seed-{seed}",
            overrides=[f"data.variants.synthetic=seed-{seed}"],
            offline=True,
        )
        if document["failed"]:
            raise SystemExit(f"seed {seed}: {document['failed'][0]['error']}")
        cells += [{**cell, "pictures": seed} for cell in document["cells"]]
    return cells


def mean_row(cells: list[dict[str, Any]], columns: Iterable[str]) -> list[str]:
    """Mean of each metric over the cells that define it."""
    return [
        f"{fmean(values):.3f}"
        if (values := [v for v in (c["metrics"][m] for c in cells) if v is not None])
        else "-"
        for m in columns
    ]


def table(cells: list[dict[str, Any]], by: tuple[str, ...], columns: Iterable[str]) -> str:
    """Markdown table of means of ``columns``, grouped by the keys ``by`` in order of appearance."""
    columns = list(columns)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[tuple(cell[k] for k in by)].append(cell)
    lines = [
        " | ".join((*by, *(COLUMNS[c] for c in columns))),
        " | ".join(["---"] * (len(by) + len(columns))),
    ]
    lines += [
        " | ".join((*map(str, key), *mean_row(group, columns))) for key, group in groups.items()
    ]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default="clip")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--results", type=Path, default=Path("results/zsad-tiny"))
    args = parser.parse_args()
    cells = measure(args.methods, [int(s) for s in args.seeds.split(",")], args.results)
    print(table(cells, ("method", "pictures"), COLUMNS))
    print()
    print(table(cells, ("method", "category"), ("image_auroc", "pixel_auroc")))


if __name__ == "__main__":
    main()
