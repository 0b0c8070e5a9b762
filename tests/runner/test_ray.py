"""``--launcher ray`` on a real local cluster of two workers, one of which is killed."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zsad
from tests.fault.process import LONG
from tests.runner.conftest import DEFINITION, SIZE, write_dataset
from zsad.config import RaySettings
from zsad.errors import RequestError, ZsadError
from zsad.results.store import ResultStore
from zsad.runner.plan import build_plan
from zsad.runner.ray import ipv4
from zsad.runner.request import Request, build_request

CATEGORIES = ("bolt", "cloth", "ring", "plate")
Sweep = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine, started as the launcher starts its own cluster."""
    from zsad.runner.ray.cluster import cluster as start

    before = dict(os.environ)
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


# -------------------------------------------------------------------------------- ports
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_no_port_of_a_cluster_of_our_own_is_open_to_other_machines(cluster: None) -> None:
    """Of this process and everything below it, while a task runs in a worker."""
    import ray

    @ray.remote
    def name() -> str:
        return socket.gethostname()

    assert ray.get(name.remote())
    found = listeners(os.getpid())
    assert len(found) >= 4  # the cluster does listen: its control service, nodes, workers
    meant = [getattr(place, "ipv4_mapped", None) or place for place in found]
    assert [place for place in meant if not place.is_loopback] == []
    if ipv4.Thread().call(ipv4.forbid_ipv6):  # so that `ss` shows 127.0.0.1, not ::ffff:127.0.0.1
        assert {place.version for place in found} == {4}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_a_cluster_of_our_own_asks_for_a_token(cluster: None, tmp_path: Path) -> None:
    """Another program of this machine, which knows the address, is not let in."""
    import ray

    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('in')"
    address = ray.get_runtime_context().gcs_address

    def enter(token: str) -> tuple[str, str]:
        environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_TOKEN": token}
        done = subprocess.run(
            [sys.executable, "-c", code, address],
            capture_output=True, text=True, timeout=100, env=environment,
        )  # fmt: skip
        return done.stdout, done.stderr

    out, err = enter("0" * 64)
    assert out == ""
    assert "InvalidAuthToken" in err
    assert enter(os.environ["RAY_AUTH_TOKEN"])[0] == "in\n"
    assert not list(tmp_path.rglob("auth_token"))


def listeners(process: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses on which a process and all below it wait for connections."""
    own = {p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_below(p, process)}
    sockets = set()
    for folder in (Path(f"/proc/{p}/fd") for p in own):
        with contextlib.suppress(OSError):
            for link in folder.iterdir():
                with contextlib.suppress(OSError):
                    sockets.add(os.readlink(link))
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.append(address_of(words[1].partition(":")[0]))
    return found


def is_below(process: int, top: int) -> bool:
    with contextlib.suppress(OSError):
        return process == top or top in ancestors(process)
    return False


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel prints addresses as words of 32 bits in the machine's own order."""
    raw = bytes.fromhex(text)
    words = [
        raw[i : i + 4][:: -1 if sys.byteorder == "little" else 1] for i in range(0, len(raw), 4)
    ]
    return ipaddress.ip_address(b"".join(words))


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


def test_trained_methods_learn_once_for_all_workers(
    cluster: None, sweep: Sweep, tmp_path: Path
) -> None:
    """One training per seed, before the shards that read it; the numbers are those of local."""
    training = tmp_path / "felt"
    write_dataset(training, ("felt",), count=3, seed=7)
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


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.skipif(not LONG, reason="runs with `make fault`")
def test_kills_from_outside_at_any_moment(cluster: None, sweep: Sweep, tmp_path: Path) -> None:
    """Workers die at random moments while the sweep runs; the numbers stay the same."""
    done = threading.Event()
    kills: list[int] = []

    def kill_now_and_then() -> None:
        rng = random.Random(5)
        while len(kills) < 5 and not done.wait(rng.uniform(0.05, 0.8)):
            if found := busy_workers():
                kills.append(rng.choice(found))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        options = {"launcher": "ray", "overrides": ["ray.retries=20", "run.batch_size=1"]}
        spread = sweep("clip,winclip", tmp_path / "ray", **options)
    finally:
        done.set()
        killer.join()
    assert kills
    assert spread["failed"] == []
    assert spread["counters"]["tasks_retried"] <= len(kills)
    local = sweep("clip,winclip", tmp_path / "local", overrides=["run.batch_size=1"])
    # A shard that is tried again merges fewer requests for features.
    assert numbers(spread).keys() == numbers(local).keys()
    for cell, metrics in numbers(local).items():
        assert numbers(spread)[cell] == pytest.approx(metrics, abs=1e-5), cell


def busy_workers() -> list[int]:
    """Processes below this one that run a shard; Ray names them by their task."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (folder / "cmdline").read_bytes()
            if name.startswith(b"ray::evaluate") and os.getpid() in ancestors(int(folder.name)):
                found.append(int(folder.name))
    return sorted(found)


def ancestors(process: int) -> Iterator[int]:
    while process > 1:
        status = Path(f"/proc/{process}/status").read_text()
        process = int(next(x for x in status.splitlines() if x.startswith("PPid")).split()[1])
        yield process


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


@pytest.mark.parametrize(
    ("device", "settings", "expected", "slots"),
    [
        ("auto", {}, 1.0, 3),  # one task per GPU
        ("auto", {"gpus": 0.5}, 0.5, 6),
        ("auto", {"cpus": 4.0}, 1.0, 2),  # the first node's processors end before its GPUs
        ("cuda", {"gpus": 2.0}, 2.0, 1),
        ("cpu", {}, 0.0, 14),
        ("auto", {"gpus": 0.0, "cpus": 2.0}, 0.0, 7),
    ],
)
def test_tasks_fit_into_nodes_as_wholes(
    device: str,
    settings: dict[str, float],
    expected: float,
    slots: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from zsad.runner.ray.cluster import needs

    nodes = [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 6.0, "GPU": 1.0}, {"CPU": 4.0}, {"memory": 9.0}]
    alive = [{"Alive": True, "Resources": n} for n in nodes]
    monkeypatch.setattr(
        ray, "nodes", lambda: [*alive, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    )
    overrides = [f"ray.{k}={v}" for k, v in settings.items()]
    request = build_request(
        methods="clip", datasets="elpv", device=device, launcher="ray", overrides=overrides
    )
    asked, found = needs(request)
    assert asked == {"num_cpus": settings.get("cpus", 1.0), "num_gpus": expected}
    assert found == slots


def test_an_error_of_the_first_worker_ends_the_request(
    cluster: None, things: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZsadError, match=r"absent\.pt"):
        zsad.bench("clip", str(things), backbone="file", weights=tmp_path / "absent.pt",
                   results=tmp_path, launcher="ray", device="cpu")  # fmt: skip


def fit_worker(request: Request, **changes: Any) -> str:
    """What a worker says to a setup that is not fit for its node; '' if it is fit."""
    from zsad.runner.ray import worker

    (request.results / "sign").touch()
    setup = worker.Setup(pickle.dumps(request), (), str(request.results), "sign")
    try:
        worker.describe(replace(setup, **changes))
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
    from zsad.runner.ray import worker
    from zsad.runner.ray.shards import shards
    from zsad.runner.training import Checkpoints

    monkeypatch.chdir(tmp_path)
    request = build_request(
        methods="clip", datasets=str(things), backbone="file", weights=str(weights),
        results=tmp_path, device="cpu", overrides=[f"backbone.image_size={SIZE}"],
    )  # fmt: skip
    store = ResultStore(tmp_path)
    shard = shards(build_plan(request, store, "other", False), 1)[0]
    (tmp_path / "sign").touch()
    setup = worker.Setup(pickle.dumps(request), (), str(tmp_path), "sign")
    with pytest.raises(RequestError, match="loads other weights of file"):
        worker.evaluate(setup, "other", shard, Checkpoints())
    assert list(store.records()) == []


# The last one on the cluster: its dead workers need no successors.
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


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    from zsad.runner.ray.cluster import cluster as start

    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    with (
        pytest.raises(RequestError, match=r"--ray-address 127\.0\.0\.1:9: no Ray cluster there"),
        start(RaySettings(address="127.0.0.1:9")),
    ):
        pass
