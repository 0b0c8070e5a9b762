"""What every row of a run is computed under, said before anything runs.  No torch.

A row is a method on a dataset: backbone, image size, preset and the keys that differ from it, what
it was or will be trained on, and where its trained state comes from.  The order in which a state
is looked for: the user's file (``METHOD.checkpoint``), the training set that the user named
(``--trained-on``), the protocol's; of that training, the state in the results folder, else it is
trained now.  Where no training set was asked for, a state that comes with the method is taken
rather than trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zsad import config as cfg
from zsad.checkpoints import bundled
from zsad.checkpoints.account import account_of
from zsad.config.method_config import as_written
from zsad.data.catalog import load_spec
from zsad.errors import WeightsError, ZsadError, counted
from zsad.registry import list_datasets
from zsad.runner.auxiliary import own_size, training_of
from zsad.runner.columns import Column
from zsad.runner.given import given_for, is_asked_for
from zsad.runner.logs import ACCOUNTS
from zsad.runner.plan import DatasetPlan, Plan, auxiliary_of
from zsad.training.identity import checkpoint_path

MOST_STATES = 200  # files of other trainings that are looked at


@dataclass(frozen=True)
class Row:
    """A method on a dataset.  ``image_size`` in pixels, 0: that of the weights' file.  ``images``:
    of the training set.  ``does``: what happens about its trained state, in words.  ``keys``:
    those of the method that are not as the preset has them."""

    method: str
    dataset: str
    backbone: str
    image_size: int
    preset: str
    trained_on: str = ""
    part: str = ""
    images: int = 0
    checkpoint: str = ""
    does: str = "training-free"
    precision: str = "fp32"
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Everything but method and dataset, as one sentence."""
        size = f"{self.image_size} px" if self.image_size else "its own size"
        learnt = ""
        if self.trained_on:
            count = f", {counted(self.images, 'image')}" if self.images else ""
            part = f"{self.part} part" if self.part else "part unknown"
            learnt = f"trained on {self.trained_on} ({part}{count}): "
        exact = "" if self.precision == "fp32" else f" in {self.precision}"
        keys = ", ".join(f"{k}={_short(as_written(k, v))}" for k, v in self.keys.items())
        preset = f"preset {self.preset} with {keys}" if keys else f"preset {self.preset}"
        return f"{self.backbone} at {size}{exact}, {preset}; {learnt}{self.does}"


def rows(plan: Plan) -> list[Row]:
    """The rows of a plan, in table order."""
    keys = {c.label: _keys(c) for c in plan.request.columns}
    return [_row(plan, d, c, keys[c.label]) for d in plan.datasets for c in plan.request.columns]


def _keys(column: Column) -> dict[str, Any]:
    """What of a column's config is not as its preset has it; of a state that the user gave, whose
    own config holds, what was set beside it."""
    if column.checkpoint is not None:
        return {k: v for k, v in cfg.flat(dict(column.given)).items() if k != "preset"}
    preset = column.entry.resolve(("preset", {"preset": column.config.preset}))
    plain, own = (cfg.flat(cfg.to_dict(c)) for c in (preset, column.config))
    return {key: value for key, value in own.items() if plain.get(key) != value}


def _short(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else f"{value}"


def _row(plan: Plan, dataset: DatasetPlan, column: Column, keys: dict[str, Any]) -> Row:
    """The conditions of a method on a dataset."""
    request = plan.request
    plain: dict[str, Any] = {
        "method": column.label,
        "dataset": dataset.name,
        **_shown(plan, column),
        "preset": column.config.preset,
        "keys": keys,
    }
    if not column.entry.trained:
        return Row(**plain)
    if request.untrained:
        return Row(**plain, does="its initial state, not trained")
    try:
        more = _given(plan, dataset, column) if column.checkpoint else _made(plan, dataset, column)
    except ZsadError as error:
        return Row(**plain, does=f"cannot be trained: {error}")
    return Row(**{**plain, **more})


def _shown(plan: Plan, column: Column) -> dict[str, Any]:
    """What pictures are shown to, and at which size."""
    backbone = plan.request.settings_of(column).backbone
    own = cfg.flat(cfg.to_dict(column.config)).get("encoder.image_size")
    size = backbone.image_size or int(own or 0) or own_size(backbone.name) or plan.image_size
    return {"backbone": backbone.name, "image_size": size, "precision": backbone.figures}


def tell(plan: Plan) -> None:
    """Say before the start what every row with something to do is computed under."""
    for line in lines([r for r in rows(plan) if _open(plan, r)]):
        ACCOUNTS.info("%s", line)


def lines(found: list[Row]) -> list[str]:
    """The rows in words; datasets with the same conditions share a line."""
    together: dict[tuple[str, str], list[str]] = {}
    for one in found:
        together.setdefault((one.method, one.words), []).append(one.dataset)
    return [f"{m} on {', '.join(names)}: {words}" for (m, words), names in together.items()]


def described(plan: Plan) -> list[dict[str, Any]]:
    """The rows, ready for JSON."""
    return [{**asdict(r), "words": r.words} for r in rows(plan)]


# ------------------------------------------------------------------------------ trained states
def _given(plan: Plan, dataset: DatasetPlan, column: Column) -> dict[str, Any]:
    """The user's file."""
    found = given_for(plan.request, column, dataset.name)
    origin = found.origin
    does = f"takes {origin.path.name}"
    if origin.released is not None:
        does += f", recognised as {origin.released.name}"
    elif not origin.trained_on:
        does += "; what it was trained on is not known"
    meta = account_of(origin.path)
    preset = meta.preset if meta else "released" if "released" in column.entry.presets else ""
    asked = column.given.get("preset")
    used = str(asked or preset or column.config.preset)
    others = []
    if origin.released is not None and (
        misfits := origin.released.misfits({**_shown(plan, column), "preset": used})
    ):
        others.append(f"unlike its authors' evaluation: {', '.join(misfits)}")
    return {
        "preset": used,
        "trained_on": " + ".join(origin.trained_on),
        "part": "training" if _own_part(origin.trained_on) else origin.part,
        "checkpoint": str(origin.path),
        "does": "; ".join([does, *found.notes, *others]),
    }


def _own_part(names: Sequence[str]) -> bool:
    """Whether datasets have a part to train on, of which no picture is evaluated."""
    known = list_datasets()
    return bool(names) and all(n in known and load_spec(n).training_split == "train" for n in names)


def _made(plan: Plan, dataset: DatasetPlan, column: Column) -> dict[str, Any]:
    """The state of the results folder, or the training that makes it."""
    request = plan.request
    data = auxiliary_of(plan, column, dataset.name)
    found: dict[str, Any] = {
        "trained_on": data.dataset,
        "part": "" if data.index.spec.training_split == "train" else data.part,
        "images": len(data.samples),
    }
    if found["part"] == "":
        found["part"] = "training"
    there: list[str] = []
    missing: list[int] = []
    shipped: list[str] = []
    seeds = request.seeds_of(column)
    own = bundled.state_of(column.entry, request.settings.backbone.name)
    for seed in seeds:
        identity = training_of(request, column, data, plan.weights_id, seed, plan.image_size)
        path = checkpoint_path(request.results, column.entry.name, identity)
        if path.is_file():
            there.append(path.name)
        elif own is not None and bundled.is_of(own, identity):
            shipped.append(f"{bundled.FOLDER}/{own.name}")
        else:
            missing.append(seed)
    which = f" (seeds {', '.join(map(str, missing))})" if len(seeds) > 1 else ""
    if not missing:
        takes = [f"{', '.join(there)} of the results folder"] if there else []
        takes += [f"the state that comes with zsad ({name})" for name in shipped]
        found["does"] = f"takes {', '.join(takes)}"
    elif not plan.weights_id:
        found["does"] = "trains now, unless the results folder holds the state"
    else:
        found["does"] = f"trains now{which}"
        if others := _others(request.results, column.entry.name, data.dataset):
            found["does"] += (
                f"; there are states trained on {', '.join(others)}, which `--trained-on` takes"
            )
        if own is not None and not is_asked_for(request, column):
            found["does"] += (
                f"; `{column.entry.name}.checkpoint=bundled` takes the state that comes with zsad, "
                f"which was trained otherwise"
            )
    if there or shipped:
        found["checkpoint"] = ", ".join([*there, *shipped])
    return found


def _others(results: Path, method: str, wanted: str) -> list[str]:
    """The other datasets that states of a method in the results folder were trained on."""
    folder = checkpoint_path(results, method, "any").parent
    names: dict[str, None] = {}
    for path in sorted(folder.glob("*.safetensors"))[:MOST_STATES]:
        try:
            meta = account_of(path)
        except WeightsError:
            continue
        if meta is not None and meta.trained_on is not None and meta.trained_on.dataset != wanted:
            names[meta.trained_on.dataset] = None
    return list(names)


def _open(plan: Plan, one: Row) -> bool:
    """Whether a row has a cell to compute."""
    datasets = [d for d in plan.datasets if d.name == one.dataset]
    return any(label == one.method for d in datasets for label, _, _ in d.todo)
