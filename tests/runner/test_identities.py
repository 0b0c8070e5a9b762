"""What was stored by c8305d8 is still found, and nothing that was computed otherwise is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.runner import identities
from zsad import config as cfg
from zsad.config import DataSettings, MetricSettings, Settings
from zsad.data import splits
from zsad.data.catalog import load_spec
from zsad.data.index import load_index
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner.plan import build_plan
from zsad.runner.request import Request
from zsad.training.identity import trained_on, training_identity

RECORDED: dict[str, dict[str, str]] = json.loads(
    Path(identities.__file__).with_name("identities_c8305d8.json").read_text(encoding="utf-8")
)


# What a method computes otherwise since: nothing that c8305d8 stored of it is served.
CHANGED = {
    "anomalyclip:paper": "the map of the last layer",
    "anomalyclip:released": "the map of the last layer, decoding",
    "anovl:released": "22 views, the last 12 blocks, raw names, the adapter",
    "aprilgan:released": "exact GELU, raw names",
    "faprompt:released": "7 epochs, decoding",
    "filo:paper": "boxes before the Gaussian, the class words of its lists",
    "filo:released": "mosaics drawn afresh, decoding",
    "kanoclip:paper": "the printed global token",
    "mvfa:default": "35 templates (revision 2)",
    "mvfa:released": "35 templates, exact GELU, 240 pixels, no normalisation",
    "patchcore:default": "Eq. 7 (revision 2)",
    "patchcore:penultimate": "Eq. 7 (revision 2)",
    "patchcore:shots=2": "Eq. 7 (revision 2)",
}
# Presets whose paper was not at hand.
GONE = {
    f"{method}:paper"
    for method in ("anovl", "aprilgan", "cocoop", "coop", "maskclip", "musc", "mvfa", "patchcore")
}


@pytest.mark.usefixtures("texts_of_c8305d8")
def test_the_same_requests_have_the_identities_of_c8305d8(tmp_path: Path) -> None:
    found = identities.everything(tmp_path)
    assert len(RECORDED) == 45
    assert set(RECORDED) - set(found) >= GONE
    for name in set(RECORDED) - GONE - set(CHANGED):
        assert found[name] == RECORDED[name], name
    for name, why in CHANGED.items():
        served = found[name]
        for what, recorded in RECORDED[name].items():
            if what == "training" or "/" in what:
                assert served[what] != recorded, (name, what, why)
            elif what == "state":  # an old file still fits
                assert served[what] == recorded, name


@pytest.mark.parametrize(("method", "served"), [("winclip", True), ("mvfa", False)])
def test_what_c8305d8_stored_is_served_only_where_it_is_still_computed_so(
    method: str, served: bool, tmp_path: Path
) -> None:
    """A store that holds the cells of a method's default as commit c8305d8 named them."""
    store = ResultStore(tmp_path)
    for cell, fingerprint in cells_of(f"{method}:default").items():
        category, _, seed = cell.partition("/")
        store.put(
            CellRecord(method, "synthetic", category, int(seed), fingerprint, {}, {}, 1, 1, {})
        )
    plan = build_plan(asked(f"{method}:default", tmp_path), store, identities.WEIGHTS, demo=True)
    stored = [is_stored for _, is_stored in plan.cells()]
    assert len(stored) == len(cells_of(f"{method}:default")) > 0
    assert set(stored) == {served}
    assert plan.n_todo == (0 if served else len(stored))


def asked(name: str, results: Path, *more: str) -> Request:
    """The request behind a recorded name, with further overrides."""
    found = {n: (method, overrides) for n, method, overrides in identities.configs()}
    method, overrides = found[name]
    return identities.request(method, [*overrides, *more], results)


def with_revision(request: Request, revision: int) -> Request:
    columns = [
        dataclasses.replace(c, entry=dataclasses.replace(c.entry, revision=revision))
        for c in request.columns
    ]
    return dataclasses.replace(request, columns=tuple(columns))


def cells_of(name: str) -> dict[str, str]:
    return {k: v for k, v in RECORDED[name].items() if "/" in k}


def all_differ(found: dict[str, str], recorded: dict[str, str]) -> bool:
    return found.keys() == recorded.keys() and not set(found.values()) & set(recorded.values())


def test_with_today_s_texts_no_cell_of_alfa_is_served(tmp_path: Path) -> None:
    for name in ("alfa:default", "alfa:shots=2"):
        assert all_differ(identities.fingerprints(asked(name, tmp_path)), cells_of(name))


@pytest.mark.usefixtures("texts_of_c8305d8")
@pytest.mark.parametrize("name", ["winclip:default", "alfa:paper", "filo:default", "coop:default"])
def test_another_revision_or_value_has_other_fingerprints(name: str, tmp_path: Path) -> None:
    method, recorded = name.partition(":")[0], cells_of(name)
    same = asked(name, tmp_path)
    assert identities.fingerprints(with_revision(same, 1)) == recorded
    second = identities.fingerprints(with_revision(same, 2))
    third = identities.fingerprints(with_revision(same, 3))
    assert all_differ(second, recorded)
    assert all_differ(third, recorded)
    assert all_differ(third, second)
    key = "score.temperature" if method == "filo" else "temperature"
    changed = identities.fingerprints(asked(name, tmp_path, f"{method}.{key}=0.5"))
    assert all_differ(changed, recorded)


@pytest.mark.parametrize("name", ["coop:default", "faprompt:default", "filo:default"])
def test_another_revision_or_value_has_another_training(name: str, tmp_path: Path) -> None:
    method, recorded = name.partition(":")[0], RECORDED[name]["training"]
    request = asked(name, tmp_path)
    assert identities.identity(request, revision=1) == recorded
    assert identities.identity(request, revision=2) != recorded
    assert identities.identity(asked(name, tmp_path, f"{method}.train.epochs=3")) != recorded
    inference = {"coop": "sigma=1.0", "faprompt": "post.sigma=1.0", "filo": "boxes.factor=0.5"}
    assert identities.identity(asked(name, tmp_path, f"{method}.{inference[method]}")) == recorded


def test_another_revision_of_a_dataset_changes_cells_and_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, request = load_index("synthetic"), asked("coop:default", tmp_path)
    raised = dataclasses.replace(load_spec("synthetic"), revision=2)
    second = load_index(raised)
    assert second.fingerprint != first.fingerprint
    assert load_index(dataclasses.replace(raised, revision=1)).fingerprint == first.fingerprint

    def training(index: Any) -> str:
        data = trained_on(index, splits.auxiliary(index, "test", 2, 8), "test")
        column = request.columns[0]
        tiny = identities.tiny()
        return training_identity("coop", column.config, tiny, request.settings, data, 1)

    assert training(first) == RECORDED["coop:default"]["training"] != training(second)
    # As a target the dataset gives other cells; as the auxiliary one, other cells of what is
    # trained on it, while what is training-free stays stored.
    for place, changed in (("evaluated", {"clip", "coop"}), ("auxiliary", {"coop"})):
        for name in ("clip:default", "coop:default"):
            asked_for = asked(name, tmp_path)
            with monkeypatch.context() as patch:
                target, auxiliary = (first, second) if place == "auxiliary" else (second, first)
                patch.setattr("zsad.runner.plan.load_index", lambda *a, _=target, **k: _)
                patch.setattr("zsad.runner.auxiliary.load_index", lambda *a, _=auxiliary, **k: _)
                found = identities.fingerprints(asked_for)
            if name.partition(":")[0] in changed:
                assert all_differ(found, cells_of(name)), (name, place)
            else:
                assert found == cells_of(name), (name, place)


@dataclasses.dataclass(frozen=True)
class LaterData(DataSettings):
    another: str = cfg.added("no")


@dataclasses.dataclass(frozen=True)
class LaterMetrics(MetricSettings):
    another: bool = cfg.added(False)


def later(settings: Settings, *, data_too: str = "no", another: bool = False) -> Settings:
    """Settings as a later version has them: one more key of the data and one of the metrics."""
    data, metrics = cfg.to_dict(settings.data), cfg.to_dict(settings.metrics)
    return dataclasses.replace(
        settings,
        data=LaterData(**data, another=data_too),
        metrics=LaterMetrics(**metrics, another=another),
    )


def test_a_later_setting_counts_only_where_it_is_set(tmp_path: Path) -> None:
    request, name = asked("coop:default", tmp_path), "coop:default"

    def with_settings(**values: Any) -> Request:
        return dataclasses.replace(request, settings=later(request.settings, **values))

    same = with_settings()
    assert identities.fingerprints(same) == cells_of(name)
    assert identities.identity(same) == RECORDED[name]["training"]
    named = with_settings(data_too="yes")
    assert all_differ(identities.fingerprints(named), cells_of(name))
    assert identities.identity(named) != RECORDED[name]["training"]
    measured = with_settings(another=True)
    assert all_differ(identities.fingerprints(measured), cells_of(name))
    assert identities.identity(measured) == RECORDED[name]["training"]  # nothing is trained by it
