"""``--launcher ray`` on a real local cluster of two workers, one of which is killed."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zsad
from tests.runner.conftest import DEFINITION, SIZE, write_dataset
from zsad.config import RaySettings
from zsad.errors import RequestError, ZsadError
from zsad.runner.plan import build_plan
from zsad.runner.request import Request, build_request
from zsad.store import ResultStore

CATEGORIES = ("bolt", "cloth", "ring", "plate")
Sweep = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine, started as the launcher starts its own cluster."""
    from zsad.runner.launch_ray import cluster as start

    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # or it writes a token into the home folder
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with start(RaySettings(workers=2)):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The definition of a dataset of four categories."""
    root = tmp_path_factory.mktemp("ray")
    write_dataset(root / "things", CATEGORIES)
    text = DEFINITION.format(name="ray-things", root=root / "things")
    extra = "  ring: {prompt: ring}\n  plate: {prompt: plate}\n"
    path = root / "ray-things.yaml"
    path.write_text(text.replace("default_variant", extra + "default_variant", 1))
    return path


@pytest.fixture
def sweep(things: Path, weights: Path) -> Sweep:
    """``zsad.bench`` on that dataset and the small backbone."""

    def run(methods: str, results: Path, **options: Any) -> dict[str, Any]:
        overrides = [f"backbone.image_size={SIZE}", *options.pop("overrides", [])]
        return zsad.bench(
            methods,
            str(things),
            backbone="file",
            weights=weights,
            results=results,
            device="cpu",
            overrides=overrides,
            **options,
        )

    return run


def numbers(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["method"], c["category"]): c["metrics"] for c in document["cells"]}


# ------------------------------------------------------------------------------- sweeps
@pytest.mark.fault
def test_a_killed_worker_loses_nothing(cluster: None, sweep: Sweep, tmp_path: Path) -> None:
    """The numbers are those of a local run, and the weights are loaded once per process."""
    (tmp_path / "met").mkdir()
    overrides = [f"mortal.once={tmp_path / 'died'}", f"mortal.meet={tmp_path / 'met'}"]
    methods = "clip,mortal"
    spread = sweep(methods, tmp_path / "ray", launcher="ray", overrides=overrides)
    assert (tmp_path / "died").exists()
    processes = {int(p.name) for p in (tmp_path / "met").iterdir()}
    assert len(processes - {os.getpid()}) >= 2
    assert spread["failed"] == []
    counters = spread["counters"]
    assert counters["tasks_retried"] == 1
    assert counters["tasks"] == len(CATEGORIES)
    assert counters["backbone_loads"] == counters["workers"]
    assert counters["cells_run"] == 2 * len(CATEGORIES)

    local = sweep(methods, tmp_path / "local", overrides=overrides)
    assert numbers(spread) == numbers(local)
    assert len(numbers(local)) == 2 * len(CATEGORIES)

    again = sweep(methods, tmp_path / "ray", launcher="ray", overrides=overrides)
    assert (again["counters"]["cells_run"], again["counters"]["tasks"]) == (0, 0)
    assert not list((tmp_path / "ray").glob(".ray-*"))


@pytest.mark.fault
def test_what_always_kills_costs_only_its_own_cell(
    cluster: None, sweep: Sweep, tmp_path: Path
) -> None:
    """The shard is tried in pieces at last, and the report says what died."""
    options = {"launcher": "ray", "overrides": ["ray.retries=0"]}
    found = sweep("clip,mortal", tmp_path / "ray", **options)
    expected = {(m, c) for m in ("clip", "mortal") for c in CATEGORIES} - {("mortal", "cloth")}
    assert set(numbers(found)) == expected
    (failure,) = found["failed"]
    assert failure["cell"]["method"] == "mortal"
    assert failure["cell"]["category"] == "cloth"
    assert failure["error"] == (
        "ray-things: cloth (mortal): given up after 2 attempts: "
        "its worker process died (killed, or out of memory)"
    )


def test_trained_methods_learn_once_for_all_workers(
    cluster: None, sweep: Sweep, tmp_path: Path
) -> None:
    """One training per seed, before the shards that read it; the numbers are those of local."""
    training = tmp_path / "felt"
    write_dataset(training, ("felt",), count=3)
    protocol = tmp_path / "own.yaml"
    protocol.write_text(
        "title: own\ndatasets: [elpv]\nmethods: [clip]\n"
        f"auxiliary: {{default: 'folder:{training}'}}\n"
    )
    options: dict[str, Any] = {
        "protocol": str(protocol),
        "seeds": "0,1",
        "overrides": ["coop.train.epochs=1", "coop.train.warmup_epochs=0"],
    }
    spread = sweep("clip,coop", tmp_path / "ray", launcher="ray", **options)
    assert spread["failed"] == []
    assert spread["counters"]["tasks"] == 2 + len(CATEGORIES)
    assert len(list((tmp_path / "ray" / "checkpoints" / "coop").glob("*.safetensors"))) == 2
    local = sweep("clip,coop", tmp_path / "local", **options)
    assert numbers(spread) == numbers(local)


# ----------------------------------------------------------------------------- refusals
def test_where_ray_is_missing_one_line_says_so(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RequestError, match=r"not installed; `pip install zsad\[ray\]` adds it"):
        sweep("clip", tmp_path, launcher="ray", dry_run=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray_address": "host:6379"}, "--ray-address host:6379: needs --launcher ray"),
        ({"launcher": "slurm"}, "--launcher slurm: known launchers are local, ray"),
        ({"launcher": "ray", "overrides": ["ray.cpu=1"]}, "did you mean 'cpus'"),
        ({"launcher": "ray", "overrides": ["ray.cpus=0"]}, "cpus must be above 0"),
    ],
)
def test_a_wrong_launcher_is_refused_before_anything_runs(
    options: dict[str, Any], message: str, sweep: Sweep, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        sweep("clip", tmp_path, dry_run=True, **options)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ray.cpus=3"], "no node has that much .the largest has 2 processors and 0 GPUs."),
        (["ray.gpus=0.5"], r"ray.cpus=1 ray.gpus=0.5: no node has that much"),
    ],
)
def test_a_need_that_no_node_meets_is_refused(
    cluster: None, overrides: list[str], message: str, sweep: Sweep, tmp_path: Path
) -> None:
    """It would wait for ever."""
    with pytest.raises(RequestError, match=message):
        sweep("clip", tmp_path, launcher="ray", overrides=overrides)
    assert not list(tmp_path.glob(".ray-*"))


def test_an_error_of_the_first_worker_ends_the_request(
    cluster: None, things: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZsadError, match=r"absent\.pt"):
        zsad.bench("clip", str(things), backbone="file", weights=tmp_path / "absent.pt",
                   results=tmp_path, launcher="ray", device="cpu")  # fmt: skip


def fit_worker(request: Request, **changes: Any) -> str:
    """What a worker says to a setup that is not fit for its node; '' if it is fit."""
    from zsad.runner import ray_worker

    (request.results / "sign").touch()
    setup = ray_worker.Setup(pickle.dumps(request), (), str(request.results), "sign")
    try:
        ray_worker.describe(replace(setup, **changes))
    except RequestError as error:
        return str(error)
    return ""


def test_a_worker_refuses_a_node_that_is_not_like_the_drivers(
    things: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = build_request(
        methods="clip", datasets=str(things), backbone="file", weights=str(weights),
        results=tmp_path, device="cpu", overrides=[f"backbone.image_size={SIZE}"],
    )  # fmt: skip
    assert fit_worker(request) == ""
    assert "has zsad" in fit_worker(request, version="0.0.1")
    assert "does not see the results folder" in fit_worker(request, sign="another")


def test_a_worker_with_other_weights_stores_nothing(
    things: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zsad.runner import ray_worker
    from zsad.runner.shards import shards
    from zsad.runner.trained import Checkpoints

    monkeypatch.chdir(tmp_path)
    request = build_request(
        methods="clip", datasets=str(things), backbone="file", weights=str(weights),
        results=tmp_path, device="cpu", overrides=[f"backbone.image_size={SIZE}"],
    )  # fmt: skip
    store = ResultStore(tmp_path)
    shard = shards(build_plan(request, store, "other", False), 1)[0]
    (tmp_path / "sign").touch()
    setup = ray_worker.Setup(pickle.dumps(request), (), str(tmp_path), "sign")
    with pytest.raises(RequestError, match="loads other weights of file"):
        ray_worker.evaluate(setup, "other", shard, Checkpoints())
    assert list(store.records()) == []


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    from zsad.runner.launch_ray import cluster as start

    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    with (
        pytest.raises(RequestError, match=r"--ray-address 127\.0\.0\.1:9: no Ray cluster there"),
        start(RaySettings(address="127.0.0.1:9")),
    ):
        pass
