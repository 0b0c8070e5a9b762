"""Fills the training pool of zsad-tiny: pairs of pictures, with and without a defect.

    python -m zsad.benchmarks.tiny.pool --folder DIR [--pairs 36000] [--seed 1000]

Both pictures of a pair show the same scene, light and nuisances; only the defect differs.  All
are of the train group.  The pool is a memory-mapped file that the trainer may read while it is
being filled; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from zsad.data.synthetic.generator import (
    ANY_DEFECT,
    CATEGORIES,
    FAMILIES,
    SIZE,
    Kind,
    Picture,
    draw,
    stream,
)

# Share of each family; the named categories of the train group divide the rest evenly.
FAMILY_SHARE = {
    "any_texture": 0.2,
    "any_object": 0.11,
    "many_parts": 0.05,
    "wire_bundle": 0.03,
    "patterned_sheet": 0.1,
    "strip": 0.08,
    "turned_part": 0.09,
    "rod": 0.07,
    "printed_thing": 0.07,
}
STRUCTURAL = 0.3  # share of a maker's own defects where it knows any
BLOCK = 256  # pairs written at once
BYTES_OF_MASK = SIZE * SIZE // 8


def kinds() -> list[tuple[Kind, float]]:
    """The categories to train on, with their shares."""
    named = [k for k in CATEGORIES.values() if k.group == "train"]
    rest = (1 - sum(FAMILY_SHARE.values())) / len(named)
    return [(FAMILIES[k], s) for k, s in FAMILY_SHARE.items()] + [(k, rest) for k in named]


def choose(seed: int, index: int) -> tuple[Kind, str]:
    """Category and defect of pair ``index``."""
    rng = stream("pool", seed, index)
    table = kinds()
    kind = table[int(rng.choice(len(table), p=[s for _, s in table]))][0]
    if kind.structural and rng.random() < STRUCTURAL:
        return kind, kind.structural[int(rng.integers(len(kind.structural)))]
    free = 0.6 if kind.key in FAMILIES else 0.45
    defect = (
        ANY_DEFECT if rng.random() < free else kind.defects[int(rng.integers(len(kind.defects)))]
    )
    return kind, defect


def make(seed: int, index: int) -> tuple[dict[str, str], Picture]:
    """Pair ``index``: the facts that its captions can state, and the picture with its flawless
    twin."""
    kind, defect = choose(seed, index)
    made = draw(kind, seed=seed, split="pool", index=index, label=1, defect=defect, with_clean=True)
    facts = {
        "class": kind.class_name,
        "kind": kind.kind,
        "defect": made.defect,
        "colour": made.colour,
    }
    return facts, made


def open_pool(folder: Path, pairs: int, mode: str) -> tuple[np.memmap, np.memmap]:
    """(pictures [N, 2, n, n, 3] uint8, masks [N, bytes] bits)."""
    exists = (folder / "pictures.u8").exists()
    kind = "r" if mode == "r" else ("r+" if exists else "w+")
    pictures = np.memmap(folder / "pictures.u8", np.uint8, kind, shape=(pairs, 2, SIZE, SIZE, 3))  # type: ignore[call-overload]
    masks = np.memmap(folder / "masks.u8", np.uint8, kind, shape=(pairs, BYTES_OF_MASK))  # type: ignore[call-overload]
    return pictures, masks


def fill(folder: Path, pairs: int, seed: int, workers: int = 1) -> None:
    """Draw what is missing of ``pairs`` pairs, in order; the result depends on ``seed`` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, masks = open_pool(folder, pairs, "w")
    facts = folder / "facts.jsonl"
    done = len(facts.read_text().splitlines()) if facts.exists() else 0
    began = time.monotonic()
    with facts.open("a", encoding="utf-8") as out, ProcessPoolExecutor(workers) as drawers:
        for start in range(done, pairs, BLOCK):
            rows = range(start, min(start + BLOCK, pairs))
            drawn = drawers.map(partial(make, seed), rows, chunksize=8)
            lines = []
            for i, (row, made) in zip(rows, drawn, strict=True):
                assert made.clean is not None
                pictures[i, 0], pictures[i, 1] = made.clean, made.image
                masks[i] = np.packbits(made.mask)
                lines.append(json.dumps(row) + "\n")
            out.write("".join(lines))
            out.flush()
            rate = (rows.stop - done) / (time.monotonic() - began)
            print(f"{rows.stop} of {pairs} pairs, {rate:.1f} pairs/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=36000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    args = parser.parse_args()
    fill(args.folder, args.pairs, args.seed, args.workers)


if __name__ == "__main__":
    main()
