"""Runs what a certificate is about: every direction as released, and without each slip."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from zsad import __version__
from zsad import config as cfg
from zsad.certificate import figures, official, page, recipe
from zsad.certificate.official import OfficialFile
from zsad.certificate.recipe import Recipe
from zsad.config.sections import read_overrides
from zsad.data.catalog import load_spec, named, select_datasets
from zsad.data.index import load_index
from zsad.errors import DataError, RequestError, categories, counted
from zsad.io import atomic_write_text
from zsad.protocols import load_protocol
from zsad.registry import MethodEntry
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore, key_of
from zsad.runner.launch import bench
from zsad.runner.options import BenchOptions
from zsad.runner.request import data_root, require_results, results_dir

FOLDER = "reproduce"  # below the results folder


@dataclass(frozen=True)
class Request:
    """What was asked for.  ``official``: folder of the authors' files, or one file of their format,
    which was trained on the dataset ``trained_on``.  ``datasets``: targets, () for all whose files
    are there; the rest as for ``zsad bench``."""

    method: str
    official: str
    trained_on: str = ""
    datasets: Sequence[str] = ()
    data_root: str | Path | None = None
    results: str | Path | None = None
    backbone: str | None = None
    weights: str | Path | None = None
    limit: int | str | None = None
    device: str = "auto"
    offline: bool = False
    overrides: Sequence[str] = ()
    progress: bool = False


@dataclass(frozen=True)
class Certificate:
    """What came of it.  ``lines``: as released; ``worth``: of every slip; ``unlike``: why it is not
    the authors' evaluation, nothing if it is; ``notes``: what else has to be known of the figures;
    ``facts``: versions, hashes and conditions; ``failed``: as of a run."""

    title: str
    verdict: figures.Verdict
    verdicts: dict[str, figures.Verdict]
    lines: tuple[figures.Line, ...]
    worth: tuple[figures.Worth, ...]
    slips: tuple[recipe.Slip, ...]
    files: tuple[OfficialFile, ...]
    unlike: tuple[str, ...]
    notes: tuple[str, ...]
    facts: dict[str, str]
    failed: tuple[dict[str, Any], ...] = ()
    written: dict[str, Path] = field(default_factory=dict)


def reproduce(request: Request) -> Certificate:
    """Evaluate the authors' files as their code does, and without each slip; write the page.

    Raises :class:`RequestError` before anything runs where files or data are missing.
    """
    if request.trained_on:
        request = replace(request, trained_on=named(request.trained_on, "--trained-on"))
    entry, found = recipe.load(request.method)
    given = read_overrides(list(request.overrides))
    _check_overrides(entry, given)
    root, results = data_root(request.data_root), results_dir(request.results)
    targets, absent = _targets(request, found, root)
    require_results(results)
    folder = results / FOLDER / entry.name
    boxes = found.detectors and not _without_boxes(given, entry.name)
    files, checkpoint, detectors = _files(request, entry, found, targets, folder, boxes)
    protocol = folder / f"reproduce-{entry.name}.yaml"
    rows = _rows(entry, found, checkpoint)
    atomic_write_text(protocol, _protocol(entry, found, targets, rows, detectors, boxes))
    document = bench(
        BenchOptions(
            protocol=str(protocol),
            backbone=request.backbone,
            weights=request.weights,
            data_root=request.data_root,
            results=results,
            limit=request.limit,
            device=request.device,
            offline=request.offline,
            overrides=list(request.overrides),
            progress=request.progress,
        )
    )
    by_row = _records(ResultStore(results), document)
    released = by_row.get(entry.name, {})
    if not released:
        causes = "; ".join(dict.fromkeys(str(f["error"]) for f in document["failed"]))
        raise DataError(f"nothing was measured: {causes}")
    sizes = {t: sum(c.group == "test" for c in load_spec(t).categories.values()) for t in targets}
    lines = figures.lines(entry.name, released, found.paper, found.log, sizes)
    metrics = list(dict.fromkeys(line.metric for line in lines))
    labels = {row.get("label", ""): _stored(entry, row) for row in rows}
    source = found.log or f"the paper ({found.paper})"
    worth = [
        one
        for slip in found.slips
        for one in figures.worth(slip.name, released, by_row.get(labels[slip.name], {}), metrics)
    ]
    made = Certificate(
        title=f"{entry.title}: reproduction of the {'released' if found.targets else 'printed'} "
        "figures",
        verdict=figures.verdict(lines, found.agree, source),
        verdicts={
            t: figures.verdict([x for x in lines if x.target == t], found.agree, source)
            for t in dict.fromkeys(line.target for line in lines)
        },
        lines=tuple(lines),
        worth=tuple(worth),
        slips=found.slips,
        files=files,
        unlike=(*_unlike(request, found, released, boxes), *figures.lacking(released, sizes)),
        notes=(
            *(f"{name} is left out: {why}" for name, why in absent.items()),
            *([found.kept_words] if found.kept else []),
            *(f"Set by the caller: {key}={value}." for key, value in cfg.flat(given).items()),
        ),
        facts=_facts(request, found, released, entry),
        failed=tuple(document["failed"]),
    )
    return page.write(made, folder)


# ---------------------------------------------------------------------------- what is asked for
def _check_overrides(entry: MethodEntry, given: Mapping[str, Any]) -> None:
    """Raise :class:`RequestError` for what the certificate itself decides."""
    own = given.get(entry.name)
    held = own if isinstance(own, Mapping) else {}
    for key in ("checkpoint", "preset"):
        if key in held:
            raise RequestError(
                f"{entry.name}.{key}: `zsad reproduce` sets it itself; leave it out, or use "
                f"`zsad bench`"
            )


def _without_boxes(given: Mapping[str, Any], method: str) -> bool:
    """Whether the user goes without the authors' detectors, or has boxes in a file."""
    own = given.get(method)
    options = own.get("grounding") if isinstance(own, Mapping) else None
    if isinstance(options, Mapping):
        return options.get("enabled") is False or bool(options.get("file"))
    return options is not None


def _targets(
    request: Request, found: Recipe, root: Path | None
) -> tuple[list[str], dict[str, str]]:
    """The targets whose files are there, and the others with the reason.

    Raises :class:`RequestError` for a dataset that has no published figures here, and where no
    target is left."""
    if found.targets:
        known = list(found.targets)
    else:
        known = list(select_datasets(load_protocol(found.protocol).datasets))
    asked = [str(d) for d in select_datasets(request.datasets)] if request.datasets else known
    if unfit := [d for d in asked if d not in known]:
        raise RequestError(
            f"--datasets {unfit[0]}: can be reproduced on {', '.join(known)}; choose among these"
        )
    asked = [d for d in asked if d not in request.trained_on.split(" + ")]
    there: list[str] = []
    absent: dict[str, str] = {}
    for name in asked:
        try:
            load_index(name, root)
        except DataError as error:
            absent[name] = str(error)
        else:
            there.append(name)
    if not there:
        raise RequestError(
            f"none of the targets {', '.join(asked)} is there: {next(iter(absent.values()), '')}"
        )
    return there, absent


def _files(
    request: Request,
    entry: MethodEntry,
    found: Recipe,
    targets: Sequence[str],
    folder: Path,
    boxes: bool,
) -> tuple[tuple[OfficialFile, ...], Any, dict[str, Path]]:
    """The files by role, the value of the method's checkpoint, and the detectors."""
    if found.targets:
        if request.trained_on:
            raise RequestError(
                f"--trained-on {request.trained_on}: the files of {entry.title} are known by "
                "their content; leave it out"
            )
        held = official.find(request.official, entry.name, found, targets, boxes)
        paths = {target: str(path.absolute()) for target, path in held.checkpoints.items()}
        return held.files, paths, held.detectors
    if not request.trained_on:
        raise RequestError(
            f"--official {request.official}: the authors of {entry.title} published no file with a "
            "known hash; say what this one was trained on with --trained-on DATASET"
        )
    source = Path(request.official)
    if not source.is_file():
        raise RequestError(f"--official {source}: no such file; give the checkpoint")
    one = official.one(source, request.trained_on)
    target = folder / f"{one.content.sha256[:16]}.safetensors"
    _import(entry, source, target, request, found)
    return (one,), str(target.absolute()), {}


def _import(
    entry: MethodEntry, source: Path, target: Path, request: Request, found: Recipe
) -> None:
    """Make a file of ours that says what it was trained on, and by whom that is said."""
    from zsad.backbones.outline import outline
    from zsad.checkpoints import import_file

    name = request.backbone or found.backbone
    if request.weights and str(request.weights) != "random":
        from zsad import backbones

        info = backbones.load(name, weights=str(request.weights), offline=request.offline).info
    else:
        info = outline(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    layers = [("preset", {"preset": "released"})]
    import_file(entry, source, target, info, layers, request.trained_on)


# ----------------------------------------------------------------------------------- the run
def _rows(entry: MethodEntry, found: Recipe, checkpoint: Any) -> list[dict[str, Any]]:
    """As released, and without each slip: rows of one protocol, so that they share every pass."""
    row = {"method": entry.name, "preset": "released", "checkpoint": checkpoint}
    return [row, *({**row, "label": s.name, "overrides": s.without} for s in found.slips)]


def _stored(entry: MethodEntry, row: Mapping[str, Any]) -> str:
    from zsad.protocols import ProtocolRow

    return ProtocolRow(label=str(row.get("label", "")), method=entry.name).stored


def _protocol(
    entry: MethodEntry,
    found: Recipe,
    targets: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    detectors: Mapping[str, Path],
    boxes: bool,
) -> str:
    """The protocol that is run, as a file that can be run again by ``zsad bench``."""
    auxiliary = load_protocol("default").auxiliary
    grounding: dict[str, Any] = {"enabled": True}
    grounding["weights"] = {target: str(path.absolute()) for target, path in detectors.items()}
    protocol: dict[str, Any] = {
        "title": f"Reproduction of {entry.title}",
        "datasets": list(targets),
        "methods": [entry.name],
        "auxiliary": {"default": auxiliary.default, "overrides": dict(auxiliary.overrides)},
        "settings": {"backbone": {"name": found.backbone}, "metrics": dict(found.metrics)},
        "rows": list(rows),
    }
    if boxes:
        protocol |= {"overrides": {entry.name: {"grounding": grounding}}, "boxes": "required"}
    return yaml.safe_dump(protocol, sort_keys=False)


def _records(store: ResultStore, document: Mapping[str, Any]) -> dict[str, figures.Cells]:
    """The records of this run by row, then by (target, category)."""
    wanted = {(c["method"], c["dataset"], c["category"], c["seed"]) for c in document["cells"]}
    found: dict[str, dict[tuple[str, str], CellRecord]] = {}
    for record in store.records():
        key = key_of(record)
        if (key.method, key.dataset, key.category, key.seed) in wanted:
            found.setdefault(record.method, {})[record.dataset, record.category] = record
    return {label: dict(cells) for label, cells in found.items()}


# ------------------------------------------------------------------------------ what is said
def _unlike(request: Request, found: Recipe, released: figures.Cells, boxes: bool) -> list[str]:
    """In what this is another evaluation than the authors'."""
    from zsad.results import weights

    notes: list[str] = []
    if not found.targets:
        notes.append(
            f"{Path(request.official).name} is not known to be the authors': no hash of their file "
            f"is published. That it was trained on {request.trained_on} is what you say."
        )
    if found.detectors and not boxes:
        notes.append("Without the authors' detectors, which is another method than the released.")
    first = next(iter(released.values())).info
    if banner := weights.banner_of(first):
        notes.append(f"{banner[:1].upper()}{banner[1:]}.")
    if request.limit:
        images = counted(int(request.limit), "image")
        notes.append(f"At most {images} per category: no figure is comparable.")
    differs = {
        text
        for record in released.values()
        for text in (record.info.get("trained_on") or {}).get("differs") or ()
    }
    if first["backbone"] != found.backbone:
        differs.add(f"backbone {first['backbone']}, not {found.backbone}")
    notes += [f"Unlike the authors' evaluation: {text}." for text in sorted(differs)]
    return notes


def _facts(
    request: Request, found: Recipe, released: figures.Cells, entry: MethodEntry
) -> dict[str, str]:
    """Conditions and hashes, by what they are of."""
    info = next(iter(released.values())).info
    data = {
        record.dataset: f"{record.info['dataset_fingerprint']} ({record.info['variant']})"
        for record in released.values()
    }
    images = {
        name: [r.n_normal + r.n_anomalous for r in released.values() if r.dataset == name]
        for name in data
    }
    now = datetime.datetime.now(datetime.timezone.utc)
    engine = info.get("engine") or {}
    log = figures.sources(entry.name, found.log, data)
    return {
        "command": command_of(request),
        "made by": f"zsad {__version__}, revision {entry.revision} of {entry.title}",
        "made at": now.isoformat(timespec="minutes"),
        **({"authors' log": log} if log else {}),
        "backbone": f"{info['backbone']} at {info['image_size']} px, {info['precision']}",
        "weights": f"{info['weights_name'] or info['weights_source']} ({info['weights_grade']})",
        "SHA-256 of the weights": str(info["weights_sha256"] or "none"),
        "engine": f"{engine.get('name', '')} {engine.get('version', '')}".strip() or "not recorded",
        "processor": str(engine.get("processor") or "not recorded"),
        **{
            f"images of {name}": f"{sum(counts)} in {categories(len(counts))}"
            for name, counts in images.items()
        },
        **{f"fingerprint of {name}": text for name, text in data.items()},
    }


def command_of(request: Request) -> str:
    """What to type for the same again."""
    options = {
        "official": request.official,
        "trained-on": request.trained_on,
        "data-root": request.data_root,
        "backbone": request.backbone,
        "weights": request.weights,
        "limit": request.limit,
    }
    words = ["zsad", "reproduce", request.method]
    for name, value in options.items():
        words += [f"--{name}", str(value)] if value else []
    return shlex.join([*words, *request.overrides])
