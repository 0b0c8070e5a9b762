"""Ray clusters: connecting to one, or starting one here, and what a task may ask of its nodes."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from zsad.config import RaySettings
from zsad.errors import RequestError
from zsad.runner.ray import ipv4
from zsad.runner.request import Request

log = logging.getLogger(__name__)

KNOCK_SECONDS = 10.0
STARTS = 3  # of a cluster of our own: Ray gives up after 30 s, which a busy machine may need
OBJECT_STORE = 128 * 2**20  # bytes, of a cluster that we start: only plans and counts go through it


def require_ray() -> None:
    """Raise :class:`RequestError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise RequestError("--launcher ray: Ray is not installed; `pip install zsad[ray]` adds it")


@contextlib.contextmanager
def cluster(settings: RaySettings) -> Iterator[None]:
    """Connect to a cluster, or start one here that ends with the run.  A connection that the
    caller has made is used and left open."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    with _closed_to_others() if address == "local" else contextlib.nullcontext():
        yield from _connected(settings, address)


def _connected(settings: RaySettings, address: str) -> Iterator[None]:
    import ray

    options: dict[str, Any] = {
        "log_to_driver": bool(os.environ.get("ZSAD_DEBUG")),
        "logging_level": logging.ERROR,
    }
    hint = "start one with `ray start --head`, or leave the address out"
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        if settings.workers:
            options["num_cpus"] = math.ceil(settings.workers * settings.cpus)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        hint = "is this machine very busy, or short of memory?"
    start = partial(ray.init, address=address, **options)
    if address == "local":
        start = partial(ipv4.Thread().call, start)
    for attempt in range(STARTS if address == "local" else 1):
        try:
            _knock(address)
            start()
            if address == "local":
                _check_loopback()
            break
        except RequestError:
            ray.shutdown()
            raise
        except Exception as error:  # of many types, none of them its own
            log.debug("attempt %d to reach Ray failed", attempt + 1, exc_info=True)
            ray.shutdown()
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    else:
        raise RequestError(f"--ray-address {address}: no Ray cluster there ({reason}); {hint}")
    try:
        yield
    finally:
        ray.shutdown()


# Read when Ray is imported: whether nodes of other machines may join.  If not, it calls this node
# by its loopback address, and a server of Ray listens on the address of its node alone.
_JOINING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_TOKEN = secrets.token_hex(32)  # of this process: Ray remembers the first one it sees


@contextlib.contextmanager
def _closed_to_others() -> Iterator[None]:
    """What makes a cluster that is started within one of this machine and this user: no port
    beyond loopback, and a token, which stays in the environment of its processes."""
    values = {_JOINING: "0"}
    if not os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        values |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        from ray._private import ray_constants  # it may have been imported long ago

        joining, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
        with contextlib.suppress(ImportError, AttributeError):  # a Ray without tokens
            from ray import _raylet

            _raylet.Config.initialize("")  # type: ignore[attr-defined]  # read the environment again
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = joining
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_loopback() -> None:
    """Raise :class:`RequestError` if other machines can reach the cluster that was started."""
    import ray

    place = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(place).is_loopback:
        raise RequestError(
            f"--launcher ray: Ray {ray.__version__} opens its ports to other machines ({place}); "
            f"install the version of zsad[ray], or start a cluster yourself and give --ray-address"
        )


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody listens at HOST:PORT: Ray itself would wait for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def needs(request: Request) -> tuple[dict[str, float], int]:
    """What a task asks of its node, and how many of them the cluster runs at a time."""
    import ray

    settings = request.settings.ray
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    gpus = settings.gpus
    if gpus is None:
        gpus = float(request.device != "cpu" and any(n.get("GPU", 0) >= 1 for n in nodes))
    slots = 0
    for node in nodes:
        fits = node.get("CPU", 0) / settings.cpus
        if gpus:
            fits = min(fits, node.get("GPU", 0) / gpus)
        slots += int(fits + 1e-9)
    if not slots:
        largest = [max((n.get(kind, 0) for n in nodes), default=0) for kind in ("CPU", "GPU")]
        raise RequestError(
            f"ray.cpus={settings.cpus:g} ray.gpus={gpus:g}: no node has that much (the largest has "
            f"{largest[0]:g} processors and {largest[1]:g} GPUs); ask for less"
        )
    return {"num_cpus": settings.cpus, "num_gpus": gpus}, slots
