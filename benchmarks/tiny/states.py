"""Trains the states that come with the trained methods for ``zsad-tiny``, unless they are current.

    python -m zsad.benchmarks.tiny.states            # or `make states`
    python -m zsad.benchmarks.tiny.states --check    # says what is not current; exit status 1
    python -m zsad.benchmarks.tiny.states --seeds 0,1,2 --methods filo

A state is that of ``zsad train --methods NAME --on synthetic --backbone zsad-tiny --limit 64`` with
seed 0, and lies at ``methods/NAME/states/zsad-tiny.safetensors``; so `make demo` finds it in place
of the training.  It is current while that training would have the same identity: the same config,
revision, backbone, pictures and texts.  The card beside it says what it reaches on the other
group of ``synthetic``, over ``--seeds``.  What was trained lies in ``--work``: a command that was
killed goes on from there.

Tensors are stored in half precision where every printed figure stays the same, and a state of more
than :data:`MOST_BYTES_EACH` bytes is not kept: it would be most of the distribution.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import zsad
from zsad import registry
from zsad.backbones.outline import outline
from zsad.checkpoints import bundled
from zsad.checkpoints.account import CheckpointMeta, account_of
from zsad.io import atomic_write_bytes, atomic_write_text
from zsad.io.digests import remembered_sha256
from zsad.metrics.spec import headline
from zsad.registry import MethodEntry
from zsad.runner.auxiliary import auxiliary_samples
from zsad.runner.options import TrainOptions
from zsad.runner.request import request_of
from zsad.training.identity import checkpoint_path, identity_on, trained_on

BACKBONE, DATASET, LIMIT = "zsad-tiny", "synthetic", 64
MOST_BYTES = 12_000_000  # of all states
MOST_BYTES_EACH = 4_000_000
CARD = "README.md"


def main() -> int:
    """Make, or check, the states."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="NAME,...; default: all that are trained")
    parser.add_argument("--seeds", default="0", help="of the card; the state is that of the first")
    parser.add_argument("--work", default="results/states", type=Path)
    parser.add_argument("--check", action="store_true", help="train nothing")
    args = parser.parse_args()
    chosen = [e for e in trained() if not args.methods or e.name in args.methods.split(",")]
    wanted = identities([e.name for e in chosen])
    stale = {e.name: why for e in chosen if (why := is_stale(e, wanted[e.name]))}
    for name, why in stale.items():
        print(f"{name}: {why}", flush=True)
    if args.check:
        return 1 if stale else 0
    seeds = [int(seed) for seed in args.seeds.split(",")]
    for entry in chosen:
        if entry.name in stale:
            make(entry, wanted[entry.name], seeds, args.work)
    print(f"{size():,} bytes in all", flush=True)
    return 0 if size() <= MOST_BYTES else 1


def trained() -> list[MethodEntry]:
    """The methods of this distribution that are trained."""
    own = Path(str(files("zsad.methods")))
    found = registry.methods().values()
    return [e for e in found if e.trained and Path(e.origin).is_relative_to(own)]


def size() -> int:
    """Bytes of all states that are there."""
    return sum(p.stat().st_size for e in trained() if (p := bundled.state_of(e, BACKBONE)))


# -------------------------------------------------------------------------- what is current
def identities(methods: Sequence[str]) -> dict[str, str]:
    """What the state of each method depends on, as a hash; without torch."""
    options = TrainOptions(
        list(methods), DATASET, backbone=BACKBONE, limit=LIMIT, device="cpu", offline=True
    )
    request = request_of(options, options.methods, DATASET)
    data = auxiliary_samples(request, DATASET)
    about = trained_on(data.index, data.samples, data.part)
    weights = remembered_sha256(Path(str(files("zsad.backbones"))) / "tiny" / "weights.safetensors")
    backbone = (BACKBONE, weights, outline(BACKBONE).image_size)
    return {
        column.entry.name: identity_on(
            column.entry.name,
            column.config,
            backbone,
            request.settings,
            about,
            0,
            column.entry.revision,
            data.index.categories,
        )
        for column in request.columns
    }


def is_stale(entry: MethodEntry, identity: str) -> str:
    """Why the state of a method is not current, or ""."""
    path = bundled.state_of(entry, BACKBONE)
    if path is None:
        return "has no state"
    meta = account_of(path)
    if meta is None or meta.identity != identity:
        return "its state was made by another training: config, revision, backbone or data changed"
    return ""


# --------------------------------------------------------------------------------- making
def make(entry: MethodEntry, identity: str, seeds: Sequence[int], work: Path) -> None:
    """Train a method, keep the state of the first seed, and write its card."""
    words: dict[str, Any] = {"backbone": BACKBONE, "limit": LIMIT, "results": work}
    words |= {"device": "cpu", "offline": True, "seeds": list(seeds)}
    place = bundled.place_of(entry, BACKBONE)
    place.unlink(missing_ok=True)  # else the old one could be found in place of the new training
    document = zsad.bench(entry.name, DATASET, **words)
    if document["failed"]:
        raise SystemExit(f"{entry.name}: {document['failed'][0]['error']}")
    state = checkpoint_path(work, entry.name, identity)
    meta = account_of(state)
    if meta is None or meta.identity != identity:
        raise SystemExit(f"{state}: is not the state that was to be made")
    half = work / "half"
    small = halved(state, checkpoint_path(half, entry.name, identity))
    rows = list(figures(document["cells"], seeds[:1]))
    if small.stat().st_size <= MOST_BYTES_EACH:
        again = zsad.bench(entry.name, DATASET, **{**words, "results": half, "seeds": seeds[:1]})
        if not again["failed"] and list(figures(again["cells"], seeds[:1])) == rows:
            state = small
        else:
            print(f"{entry.name}: figures change in half precision", flush=True)
    if state.stat().st_size > MOST_BYTES_EACH:
        print(f"{entry.name}: {small.stat().st_size:,} bytes at least; too large to come with zsad")
        return
    atomic_write_bytes(place, state.read_bytes())
    atomic_write_text(place.with_name(CARD), card(entry, meta, document["cells"], place))
    print(f"{entry.name}: {place.stat().st_size:,} bytes", flush=True)


def halved(state: Path, target: Path) -> Path:
    """Write a state with its numbers in half precision, where they are floating-point ones."""
    from zsad.checkpoints.states import load_any, save

    held = load_any(state)
    if held.meta is None:
        raise SystemExit(f"{state}: is not a state of zsad's")
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in held.state.items()}
    return save(target, tensors, held.meta)


def card(entry: MethodEntry, meta: CheckpointMeta, cells: list[dict[str, Any]], place: Path) -> str:
    """The card of a state, as Markdown."""
    assert meta.trained_on is not None
    data = meta.trained_on
    seeds = sorted({cell["seed"] for cell in cells})
    rows = "\n".join(f"| {title} | {text} |" for title, text in figures(cells, seeds))
    categories = ", ".join(data.categories)
    over = f"{', '.join(map(str, seeds))}{' with the sample deviation' if seeds[1:] else ''}"
    return f"""# {entry.title} on {BACKBONE}: the state that comes with zsad

`{place.name}`, {place.stat().st_size:,} bytes, safetensors; the header says everything below.

| | |
|---|---|
| made by | `python -m zsad.benchmarks.tiny.states --methods {entry.name}` (zsad {meta.version}) |
| trained on | `{data.dataset}`, {data.part} part, {len(data.uids)} generated images: {categories} |
| backbone | {meta.backbone}, sha256 `{meta.backbone_sha256}` |
| seed, epochs | {meta.seed}, {meta.epochs} |
| training | `{meta.identity}` (hash of config, revision, backbone, images and texts) |

Means over the eight categories of the other group of `{DATASET}`, at most {LIMIT} images each, in
per cent; over the seeds {over}:

| figure | |
|---|---:|
{rows}

It shows that everything works, on generated pictures and a demonstration backbone. **It is not
comparable with published figures**, and is refused where it would be evaluated on what it was
trained on.
"""


def figures(cells: list[dict[str, Any]], seeds: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Title and text of every headline figure: its mean, and the deviation over several seeds."""
    for metric in headline():
        means = []
        for seed in seeds:
            values = [c["metrics"].get(metric.name) for c in cells if c["seed"] == seed]
            if known := [v for v in values if v is not None]:
                means.append(100 * fmean(known))
        if means:
            spread = f" ± {stdev(means):.1f}" if means[1:] else ""
            yield metric.full_title, f"{fmean(means):.1f}{spread}"


if __name__ == "__main__":
    raise SystemExit(main())
