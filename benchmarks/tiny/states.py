"""Trains the states that come with the trained methods for ``zsad-tiny``, unless they are current.

    python -m zsad.benchmarks.tiny.states            # or `make states`
    python -m zsad.benchmarks.tiny.states --check    # says what is not current; exit status 1
    python -m zsad.benchmarks.tiny.states --seeds 0,1,2 --methods filo
    python -m zsad.benchmarks.tiny.states --seeds 0,1,2 --cards  # of states that are current, too

A state is that of ``zsad train --methods NAME --on synthetic --backbone zsad-tiny --limit 64`` with
seed 0, and lies at ``methods/NAME/states/zsad-tiny.safetensors``; a sweep that asks for that
training finds it in its place.  Where ``methods/NAME/states/zsad-tiny.yaml`` is there, the training
has the settings that it names, and the card says ``why``; such a state serves `zsad predict` and
``NAME.checkpoint=bundled``.  It is current while that training would have the same identity: the
same config, revision, backbone, pictures and texts.  The card beside it says what it reaches on the
other group of ``synthetic``, over ``--seeds``.  What was trained lies in ``--work``: a command that
was killed goes on from there.

A state is in half precision where every printed figure stays the same.  One that is of more than
:data:`MOST_BYTES_EACH` bytes so, or as it was trained where half precision changes a digit, is
packed (:mod:`zsad.checkpoints.packing`) in the fewest bits a number with which every figure stays
within :data:`TOLERANCE` of what the training reached.  A state is what is stored: its card shows
the figures of that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import zsad
from zsad import config as cfg
from zsad import registry
from zsad.checkpoints import bundled
from zsad.checkpoints.account import CheckpointMeta, account_of
from zsad.checkpoints.packing import packing_of
from zsad.io import atomic_write_bytes, atomic_write_text
from zsad.io.digests import remembered_sha256
from zsad.metrics.spec import headline
from zsad.registry import MethodEntry
from zsad.runner.auxiliary import auxiliary_samples, training_of
from zsad.runner.options import TrainOptions
from zsad.runner.request import request_of
from zsad.training.identity import checkpoint_path

BACKBONE, DATASET, LIMIT = "zsad-tiny", "synthetic", 64
MOST_BYTES = 12_000_000  # of all states
MOST_BYTES_EACH = 500_000
BITS = (4, 6, 8)
TOLERANCE = 0.2  # percent, well below the deviation over seeds
CARD = "README.md"
PACKED = "bits a number"

Cells = list[dict[str, Any]]


def main() -> int:
    """Make, or check, the states."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", help="NAME,...; default: all that are trained")
    parser.add_argument("--seeds", default="0", help="of the card; the state is that of the first")
    parser.add_argument("--work", default="results/states", type=Path)
    parser.add_argument("--check", action="store_true", help="train nothing")
    parser.add_argument(
        "--cards",
        action="store_true",
        help="write the cards of current states anew, too; trains --seeds but for the first",
    )
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
        elif args.cards:
            describe_anew(entry, seeds, args.work)
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


def options_of(entry: MethodEntry) -> list[str]:
    """The settings of a method's own that its state is trained with, as options of a command."""
    own = bundled.recipe_of(entry, BACKBONE).config
    return [f"{entry.name}.{key}={value}" for key, value in cfg.flat(own).items()]


# -------------------------------------------------------------------------- what is current
def identities(methods: Sequence[str]) -> dict[str, str]:
    """What the state of each method depends on, as a hash; without torch."""
    own = [word for name in methods for word in options_of(registry.method(name))]
    options = TrainOptions(
        list(methods),
        DATASET,
        backbone=BACKBONE,
        limit=LIMIT,
        device="cpu",
        offline=True,
        overrides=own,
    )
    request = request_of(options, options.methods, DATASET)
    data = auxiliary_samples(request, DATASET)
    weights = remembered_sha256(Path(str(files("zsad.backbones"))) / "tiny" / "weights.safetensors")
    return {
        column.entry.name: training_of(request, column, data, weights, seed=0)
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
    place = bundled.place_of(entry, BACKBONE)
    place.unlink(missing_ok=True)  # else the old one could be found in place of the new training
    trained_cells = evaluated(entry, work, seeds)
    state = checkpoint_path(work, entry.name, identity)
    meta = account_of(state)
    if meta is None or meta.identity != identity:
        raise SystemExit(f"{state}: is not the state that was to be made")
    kept, cells, how = smallest(entry, state, trained_cells, seeds[0], work)
    atomic_write_bytes(place, kept.read_bytes())
    describe(entry, cells, trained_cells, how)


def describe_anew(entry: MethodEntry, seeds: Sequence[int], work: Path) -> None:
    """Write the card of a state that stays as it is, over other seeds.

    Raises ``SystemExit`` for a packed state whose training does not lie in ``work``: what the
    training reached would be read off the packed state.
    """
    place = bundled.place_of(entry, BACKBONE)
    meta, how = account_of(place), form_of(place)
    assert meta is not None
    own = checkpoint_path(work, entry.name, meta.identity)
    if how.endswith(PACKED) and not (own.is_file() and form_of(own) == "single precision"):
        raise SystemExit(f"{entry.name}: {own}, the training that was packed, is not there")
    stored = work / "stored"
    atomic_write_bytes(checkpoint_path(stored, entry.name, meta.identity), place.read_bytes())
    describe(entry, evaluated(entry, stored, [meta.seed]), evaluated(entry, work, seeds), how)


def describe(entry: MethodEntry, cells: Cells, trained_cells: Cells, how: str) -> None:
    """Write the card of the state that is there."""
    place = bundled.place_of(entry, BACKBONE)
    meta = account_of(place)
    assert meta is not None
    text = card(entry, meta, cells, trained_cells, how, place.stat().st_size)
    atomic_write_text(place.with_name(CARD), text)
    print(f"{entry.name}: {place.stat().st_size:,} bytes, {how}", flush=True)


def form_of(path: Path) -> str:
    """In how many bits the numbers of a state are stored, in words."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = dict(file.metadata() or {})
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    if packed := packing_of(path, header).tensors:
        return f"{max(t.bits for t in packed.values())} {PACKED}"
    return "half precision" if "F16" in kinds else "single precision"


def epochs_of(entry: MethodEntry) -> str:
    """The epochs that the training of a state runs through, phase by phase."""
    loaded = zsad.load_method(
        entry.name,
        backbone=BACKBONE,
        device="cpu",
        untrained=True,
        overrides=[word.removeprefix(f"{entry.name}.") for word in options_of(entry)],
    )
    loaded.method.auxiliary = (DATASET,)
    phases = loaded.method.phases()
    if len(phases) == 1:
        return str(phases[0].epochs)
    return ", then ".join(f"{p.epochs} of the phase `{p.name}`" for p in phases)


def evaluated(entry: MethodEntry, results: Path, seeds: Sequence[int]) -> Cells:
    """The cells of a method on the other group, from the states in a results folder; what is
    missing there is trained."""
    words: dict[str, Any] = {"backbone": BACKBONE, "limit": LIMIT, "device": "cpu", "offline": True}
    words["overrides"] = options_of(entry)
    document = zsad.bench(entry.name, DATASET, **words, results=results, seeds=list(seeds))
    if document["failed"]:
        raise SystemExit(f"{entry.name}: {document['failed'][0]['error']}")
    cells: Cells = document["cells"]
    return cells


def smallest(
    entry: MethodEntry, state: Path, trained_cells: Cells, seed: int, work: Path
) -> tuple[Path, Cells, str]:
    """The smallest form of a state that may stand for it: its file, its cells, and its words."""
    before = means(trained_cells, seed)
    half = rewritten(state, work / "half", entry.name, 16)
    forms = [16]
    if half.stat().st_size > MOST_BYTES_EACH:
        forms = [*BITS, 16]
    elif state.stat().st_size > MOST_BYTES_EACH:
        forms = [16, *BITS]
    for bits in forms:
        folder = work / (f"bits{bits}" if bits < 16 else "half")
        small = rewritten(state, folder, entry.name, bits)
        cells = evaluated(entry, folder, [seed])
        after = means(cells, seed)
        words = "half precision" if bits == 16 else f"{bits} {PACKED}"
        shown = ", ".join(f"{k} {v:.2f} to {after[k]:.2f}" for k, v in before.items())
        print(f"{entry.name}: {words}, {small.stat().st_size:,} bytes: {shown}", flush=True)
        off = max(abs(after[k] - v) for k, v in before.items())
        same = list(figures(cells, [seed])) == list(figures(trained_cells, [seed]))
        if same or (bits < 16 and off <= TOLERANCE):
            return small, cells, words
    first = [c for c in trained_cells if c["seed"] == seed]
    return state, first, "single precision"


def rewritten(state: Path, results: Path, method: str, bits: int) -> Path:
    """Write a state in another form into a results folder, where a sweep finds it: in 16 bits in
    half precision, in fewer packed."""
    from zsad.checkpoints.states import load_any, save

    held = load_any(state)
    if held.meta is None:
        raise SystemExit(f"{state}: is not a state of zsad's")
    target = checkpoint_path(results, method, held.meta.identity)
    if bits < 16:
        return save(target, held.state, held.meta, bits=bits)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in held.state.items()}
    return save(target, tensors, held.meta)


def card(
    entry: MethodEntry,
    meta: CheckpointMeta,
    cells: Cells,
    trained_cells: Cells,
    how: str,
    size: int,
) -> str:
    """The card of a state, as Markdown: the figures of what is stored, and of all trainings."""
    assert meta.trained_on is not None
    data = meta.trained_on
    seeds = sorted({cell["seed"] for cell in trained_cells})
    stored, made = dict(figures(cells, [meta.seed])), dict(figures(trained_cells, seeds))
    rows = "\n".join(f"| {title} | {stored[title]} | {text} |" for title, text in made.items())
    categories = ", ".join(data.categories)
    over = f"seed{'s' * bool(seeds[1:])} {', '.join(map(str, seeds))}"
    why = bundled.recipe_of(entry, BACKBONE).why
    own = f"{'; '.join(given)} ({why})" if (given := options_of(entry)) else "the default"
    spread = "mean and sample deviation" if seeds[1:] else "one training: no deviation is known"
    return f"""# {entry.title} on {BACKBONE}: the state that comes with zsad

`{BACKBONE}.safetensors`, {size:,} bytes, safetensors, {how}; the header says everything below.

| | |
|---|---|
| made by | `python -m zsad.benchmarks.tiny.states --methods {entry.name}` (zsad {meta.version}) |
| trained on | `{data.dataset}`, {data.part} part, {len(data.uids)} generated images: {categories} |
| settings | {own} |
| backbone | {meta.backbone}, sha256 `{meta.backbone_sha256}` |
| seed | {meta.seed} |
| epochs | {epochs_of(entry)} |
| training | `{meta.identity}` (hash of config, revision, backbone, images and texts) |

Means over the eight categories of the other group of `{DATASET}`, at most {LIMIT} images each, in
per cent: of the state as it is stored here, and of the trainings in single precision
({over}; {spread}):

| figure | this state | trainings |
|---|---:|---:|
{rows}

It shows that everything works, on generated pictures and a demonstration backbone. **It is not
comparable with published figures**, and is refused where it would be evaluated on what it was
trained on.
"""


def means(cells: Cells, seed: int) -> dict[str, float]:
    """Every headline figure of a seed, in per cent: its mean over the categories that have it."""
    found = {}
    for metric in headline():
        values = [c["metrics"].get(metric.name) for c in cells if c["seed"] == seed]
        if known := [v for v in values if v is not None]:
            found[metric.full_title] = 100 * fmean(known)
    return found


def figures(cells: Cells, seeds: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Title and text of every headline figure: its mean, and the deviation over several seeds."""
    each = [means(cells, seed) for seed in seeds]
    for title in each[0]:
        values = [one[title] for one in each if title in one]
        spread = f" ± {stdev(values):.1f}" if values[1:] else ""
        yield title, f"{fmean(values):.1f}{spread}"


if __name__ == "__main__":
    raise SystemExit(main())
