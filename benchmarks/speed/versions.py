"""What an image costs in a whole sweep here, beside another version of zsad.

    python -m zsad.benchmarks.speed.versions --tree DIR [--methods A,B] [--images 24] [--json]
    python -m zsad.benchmarks.speed.versions --quick

``--tree`` is an unpacked version (``git archive c8305d8 | tar x -C DIR``); without it only this one
is measured.  Pictures of ``synthetic`` are written as PNG files, and ``zsad.bench`` reads them with
the bundled backbone and learned methods in their initial state.  Both versions take turns, each in
a process of its own with this Python.  CPU seconds of the process; the cost of an image is the
difference between a sweep of many and one of few, so that what is paid once (imports, text,
planning) is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import zsad
from zsad.benchmarks.speed import measure
from zsad.data import splits
from zsad.data.images import mask_values, read_image
from zsad.data.index import load_index

FOUR = "filo,faprompt,kanoclip,anomalyclip"
HERE = "here"
SWEEPS = """
import json, os, sys, tempfile, time
import torch
torch.set_num_threads(1)
import zsad
methods, data, limits, overrides = json.loads(sys.argv[1])
where = os.path.dirname(os.path.dirname(os.path.realpath(zsad.__file__)))
assert where == os.path.realpath(os.environ["PYTHONPATH"]), f"{where} is measured instead"
found = []
for limit in limits:
    with tempfile.TemporaryDirectory() as results:
        start = time.process_time()
        done = zsad.bench(methods, "folder:" + data, backbone="zsad-tiny", results=results,
                          untrained=True, offline=True, limit=limit, overrides=overrides)
        seconds = time.process_time() - start
    assert not done["failed"], done["failed"][0]
    first = done["cells"][0]["method"]
    counts = [c["n_normal"] + c["n_anomalous"] for c in done["cells"] if c["method"] == first]
    found.append((seconds, sum(counts)))
print(json.dumps(found))
"""


def write_pictures(folder: Path, images: int) -> None:
    """Write test pictures of every category of ``synthetic``, and two training pictures of each,
    in MVTec's layout."""
    index = load_index("synthetic")
    for category, samples in splits.evaluated(index, images).items():
        train = splits.references(index, category, 2, 0)
        for i, sample in enumerate([*samples, *train]):
            group = "train" if i >= len(samples) else "test"
            kind = "defect" if sample.label else "good"
            path = folder / category / group / kind / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            read_image(sample.image).save(path)
            if sample.mask:
                mask = folder / category / "ground_truth" / kind / f"{i:03}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((mask_values(sample.mask) > 0).astype("uint8") * 255).save(mask)


def milliseconds(tree: str, words: str) -> float:
    """CPU milliseconds of one further image in the version that lies in ``tree``."""
    run = subprocess.run(
        [sys.executable, "-c", SWEEPS, words],
        env={**os.environ, "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"},
        cwd=tree,  # where python -c looks for packages first
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(f"{tree}: {run.stderr.strip()[-500:]}")
    _, few, many = json.loads(run.stdout.splitlines()[-1])  # the first one warms up
    return float(1000 * (many[0] - few[0]) / (many[1] - few[1]))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tree", help="another version, unpacked")
    parser.add_argument("--methods", default=FOUR)
    parser.add_argument("--images", type=int, default=24, help="of a category")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one method, six images, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.quick:
        options.methods, options.images, options.repeats = "anomalyclip", 6, 1
    trees = {HERE: str(Path(zsad.__file__).parents[1])}
    trees |= {"there": str(Path(options.tree).resolve())} if options.tree else {}
    overrides = ["filo.grounding=none"] if "filo" in options.methods.split(",") else []
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), options.images)
        words = json.dumps([options.methods, folder, [2, 4, options.images], overrides])
        found: dict[str, list[float]] = {name: [] for name in trees}
        for _ in range(options.repeats):
            for name, tree in trees.items():
                found[name].append(milliseconds(tree, words))
    document = {
        "conditions": measure.conditions(
            engine="auto",
            methods=options.methods,
            images=options.images,
            repeats=options.repeats,
            clock="cpu",
        )
        | {"threads": 1},
        "milliseconds_per_image": {k: measure.spread(v) for k, v in found.items()},
        "share": {k: measure.ratio(found[HERE], v) for k, v in found.items()},
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return document
    print(measure.headline(document["conditions"]))
    for name, values in document["milliseconds_per_image"].items():
        share = measure.shown(document["share"][name])
        print(f"{name:>8}: {measure.shown(values, digits=1)} ms an image; here is {share} of it")
    return document


if __name__ == "__main__":
    main()
