"""Measures scores and maps that another program made, and stores them like cells of the house.

The same indexes, masks, metrics and curves as in a sweep; what is not known of the method (its
backbone, its training) is not claimed: the record says that it was imported, from where, and how
large its maps are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zsad import __version__, registry
from zsad import config as cfg
from zsad.config import Settings
from zsad.config.sections import COMMAND_LINE, read_overrides, resolve_settings
from zsad.data import provenance, splits
from zsad.data.catalog import select_datasets
from zsad.data.index import load_index
from zsad.errors import RequestError, shown
from zsad.exchange.maps import read
from zsad.exchange.measuring import PREFIX, DatasetImport, Measured
from zsad.results import examples
from zsad.results.document import document
from zsad.results.records import CellKey
from zsad.results.store import ResultStore, key_of
from zsad.runner.manifest import head
from zsad.runner.request import data_root, require_results, results_dir

LONGEST_NAME = 60
SECTIONS = ("data", "metrics")  # of settings, that an import heeds


@dataclass(frozen=True)
class Import:
    """A request: the maps and scores of ``source`` on ``datasets``, as the column ``name``.

    ``source`` holds a folder per dataset where there are several.  ``partial``: what is missing
    is left out, and the figures are never ranked nor compared.  ``seed``: several imports of one
    name become one column with a deviation.  ``limit``: at most so many images of a category, those
    that ``zsad bench --limit`` takes; 0: all.  ``shots``: how many normal images of each category
    the method has seen, :data:`ALL_SHOTS` for all of the training part; such columns never stand
    among zero-shot ones.
    """

    name: str
    source: Path
    datasets: str | Sequence[str]
    provenance: str = ""
    partial: bool = False
    seed: int = 0
    limit: int = 0
    results: str | Path | None = None
    data_root: str | Path | None = None
    overrides: Mapping[str, Any] | Sequence[str] = ()
    shots: int = 0


def run(request: Import) -> dict[str, Any]:
    """Measure and store; return the document of ``zsad bench`` with ``imported`` besides.

    Nothing is stored unless everything could be measured.  Raises :class:`RequestError` for a
    request that is wrong, and :class:`DataError` for maps or scores that are missing (without
    ``partial``), there twice, not finite, or of a size that fits nothing: the first three images
    are named.
    """
    _check_name(request.name)
    resolved = _settings(request.overrides)
    settings, set_by = resolved.value, resolved.origin("metrics.fpr_limit")
    names = select_datasets(request.datasets, settings.data.folder)
    results = results_dir(request.results)
    require_results(results)
    root = data_root(request.data_root)
    found: list[tuple[DatasetImport, list[Measured]]] = []
    for name in names:
        source = request.source / name if len(names) > 1 else request.source
        index = load_index(name, root, variant=settings.data.variants.get(name))
        index = provenance.checked(results, index)
        samples = splits.evaluated(index, request.limit)
        outside = read(source, [s for s in index.samples if s.split == "test"])
        one = DatasetImport(
            request.name,
            str(source),
            index,
            samples,
            outside,
            replace(settings, metrics=index.spec.metric_settings(settings.metrics, set_by)),
            request.provenance,
            request.seed,
            request.limit,
            request.shots,
        )
        if not request.partial:
            one.require_all()
        found.append((one, one.measure()))
    return _stored(request, settings, ResultStore(results), found)


def _check_name(name: str) -> None:
    """Raise :class:`RequestError` for a name that a table could not show, or that means ours."""
    if not re.fullmatch(r"[^\W_][\w .+()\-]*", name) or len(name) > LONGEST_NAME:
        raise RequestError(
            f"--name {shown(name)[:LONGEST_NAME]}: give at most {LONGEST_NAME} letters, digits and "
            "any of ' .+()-_', beginning with a letter or digit"
        )
    own = {entry.name.casefold(): entry for entry in registry.methods().values()}
    if entry := own.get(name.casefold()):
        raise RequestError(
            f"--name {name}: method {entry.name} is hosted here; give another name, such as "
            f"'{name} (authors)'"
        )


def _settings(overrides: Mapping[str, Any] | Sequence[str]) -> cfg.Resolved[Settings]:
    given = read_overrides(overrides)
    for key in cfg.flat(given):
        if key.partition(".")[0] not in SECTIONS:
            raise RequestError(
                f"{key}: changes nothing about scores and maps that are there already; an import "
                f"takes keys of {' and '.join(SECTIONS)}"
            )
    return resolve_settings([(COMMAND_LINE, given)])


# ------------------------------------------------------------------------------- storing
def _stored(
    request: Import,
    settings: Settings,
    store: ResultStore,
    found: Sequence[tuple[DatasetImport, Sequence[Measured]]],
) -> dict[str, Any]:
    """Store what was measured, and return the document."""
    keys: list[tuple[CellKey, bool]] = []
    written = 0
    for dataset, measured in found:
        for one in measured:
            key = key_of(one.record)
            keys.append((key, True))
            if store.has(key):
                store.promote(key)
                continue
            provenance.note(store.root, dataset.index, one.record.category, one.samples)
            # The record comes last: what has a record has everything that belongs to it.
            examples.save(store.root, key, one.pictures)
            store.put(one.record, one.scores)
            written += 1
    store.write_manifest(_manifest(request, settings, [dataset for dataset, _ in found]))
    strangers = {d.index.spec.name: list(dict.fromkeys(d.outside.strangers)) for d, _ in found}
    return {
        **document(keys, {}, store, {"cells_stored": written}, {}),
        "imported": {
            "title": f"{request.name} (imported)",
            "provenance": request.provenance,
            "maps": {d.index.spec.name: d.map_words for d, _ in found},
            "image_score": {d.index.spec.name: d.score_words for d, _ in found},
            "left_out": {d.index.spec.name: ids for d, _ in found if (ids := d.missing())},
            "strangers": {name: names for name, names in strangers.items() if names},
        },
    }


def _manifest(
    request: Import, settings: Settings, datasets: Sequence[DatasetImport]
) -> dict[str, Any]:
    return {
        **head(),
        "versions": {"zsad": __version__},
        "request": {
            "verb": "results import",
            "methods": [PREFIX + request.name],
            "datasets": [d.index.spec.name for d in datasets],
            "provenance": request.provenance,
            "partial": request.partial,
            "seeds": [request.seed],
            "limit": request.limit,
            "shots": request.shots,
        },
        "settings": {k: v for k, v in cfg.to_dict(settings).items() if k in SECTIONS},
        "datasets": {
            d.index.spec.name: {"variant": d.index.variant, "fingerprint": d.index.fingerprint}
            for d in datasets
        },
    }
