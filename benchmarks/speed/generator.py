"""Pictures a second of the generated dataset, one process, by group of categories.

    python -m zsad.benchmarks.speed.generator [--quick] [--images N] [--clock cpu] [--json]

Every turn draws ``--images`` pictures of each category at 224 pixels, half of them with a defect,
never the same twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from zsad.benchmarks.speed import measure
from zsad.data.synthetic.generator import CATEGORIES, SIZE, draw

GROUPS = {"held out": "test", "to train on": "train"}


def draw_all(group: str, images: int, turn: int) -> int:
    """Draw the pictures of one turn; returns how many."""
    kinds = [k for k in CATEGORIES.values() if k.group == group]
    for kind in kinds:
        for i in range(images):
            draw(kind, seed=turn, split="speed", index=i, label=i % 2)
    return images * len(kinds)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print and return the document."""
    parser = measure.options(__doc__)
    parser.add_argument("--images", type=int, default=12, help="per category and turn")
    parser.add_argument("--quick", action="store_true", help="two images a category, once")
    options = parser.parse_args(arguments)
    if options.quick:
        options.images, options.repeats = 2, 1
    rates: dict[str, list[float]] = {name: [] for name in GROUPS}
    for turn in range(options.repeats):
        for name, group in GROUPS.items():
            start = measure.now(options.device, options.clock)
            count = draw_all(group, options.images, turn)
            rates[name].append(count / (measure.now(options.device, options.clock) - start))
    document = {
        "conditions": measure.conditions(
            pixels=SIZE, images=options.images, repeats=options.repeats, clock=options.clock
        ),
        "pictures_per_second": {name: measure.spread(found) for name, found in rates.items()},
    }
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        print(measure.headline(document["conditions"]))
        for name, found in document["pictures_per_second"].items():
            print(f"  {name:12} {measure.shown(found, 1, 1)} pictures a second")
    return document


if __name__ == "__main__":
    main()
