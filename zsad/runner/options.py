"""The options of a run: written once, for the command line, Python, the request and the manifest.

A new option is one field here, and its use.  From the fields are made: ``--help`` and the flags
(:mod:`zsad.cli.options`), the keywords of ``zsad.bench`` and ``zsad.train`` (:func:`takes`), what a
request carries (``request.options``) and what the manifest says.  No torch.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from zsad.errors import RequestError, nearest

P = ParamSpec("P")
R = TypeVar("R")
Names = str | Sequence[str]

LAUNCHERS = ("local", "ray")


@dataclass(frozen=True)
class Option:
    """How a field looks on the command line.  ``python``: it is not a flag; a verb fills it in."""

    help: str
    metavar: str | None = None
    python: bool = False

    @property
    def is_path(self) -> bool:
        """Whether the value is a place on this machine."""
        return self.metavar in ("FILE", "DIR")


def option(help: str, metavar: str | None = None, *, python: bool = False) -> dict[str, Option]:
    """The metadata of a field."""
    return {"option": Option(help, metavar, python)}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `zsad bench` and `zsad train` share."""

    protocol: str | None = field(default=None, metadata=option("see `zsad list protocols`", "NAME"))
    backbone: str | None = field(default=None, metadata=option("see `zsad list backbones`", "NAME"))
    weights: str | Path | None = field(
        default=None, metadata=option("weight file of the backbone", "FILE")
    )
    config: str | Path | None = field(
        default=None, metadata=option("YAML file of settings", "FILE")
    )
    data_root: str | Path | None = field(
        default=None,
        metadata=option("folder that holds the datasets (default: $ZSAD_DATA)", "DIR"),
    )
    results: str | Path | None = field(
        default=None,
        metadata=option("results folder (default: $ZSAD_RESULTS, or ./results)", "DIR"),
    )
    seeds: str | int | Sequence[int] | None = field(
        default=None, metadata=option("seeds of trained and few-shot methods", "N,...")
    )
    limit: int | str | None = field(
        default=None, metadata=option("at most N images per category, balanced", "N")
    )
    device: str = field(default="auto", metadata=option("auto, cpu, cuda, cuda:1, mps"))
    offline: bool = field(default=False, metadata=option("never reach for a weight hub"))
    plugins: str | Path | None = field(
        default=None, metadata=option("folder with further methods", "DIR")
    )
    overrides: Sequence[str] | Mapping[str, Any] = field(
        default=(), metadata=option("KEY=VALUE words change settings", python=True)
    )
    progress: bool = field(default=False, metadata=option("show a progress bar", python=True))

    def record(self) -> dict[str, Any]:
        """JSON-ready: every option by its name; of a place on this machine its last part."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        for name, (_, said) in described(type(self)).items():
            if said.is_path and found[name] is not None:
                found[name] = Path(found[name]).name
        return found


@dataclass(frozen=True)
class BenchOptions(RunOptions):
    """The options of `zsad bench`."""

    methods: Names | None = field(
        default=None, metadata=option("all, papers, baselines, NAME,...", "NAMES")
    )
    datasets: Names | None = field(
        default=None, metadata=option("all, industrial, medical, NAME,..., folder:PATH", "NAMES")
    )
    _: KW_ONLY
    launcher: str = field(
        default="local", metadata=option("local or ray (several machines)", "NAME")
    )
    ray_address: str | None = field(
        default=None,
        metadata=option(
            "of a running Ray cluster: auto, HOST:PORT (default: $RAY_ADDRESS, or one of its own)",
            "ADDRESS",
        ),
    )
    fresh: bool = field(default=False, metadata=option("compute stored cells again"))
    dry_run: bool = field(default=False, metadata=option("print the cells, run nothing"))
    rows: Names | None = field(
        default=None, metadata=option("rows of the protocol, by label: 'T4*'", "NAMES")
    )
    trained_on: str | None = field(
        default=None,
        metadata=option("train on this dataset, not on the protocol's", "DATASET"),
    )
    untrained: bool = field(
        default=False, metadata=option("evaluate trained methods in their initial state")
    )

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            known = ", ".join(LAUNCHERS)
            raise RequestError(f"--launcher {self.launcher}: known launchers are {known}")
        if self.ray_address and self.launcher != "ray":
            raise RequestError(f"--ray-address {self.ray_address}: needs --launcher ray")


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """The options of `zsad train`."""

    methods: Names = field(metadata=option("trained, NAME,...", "NAMES"))
    on: str = field(metadata=option("the auxiliary dataset", "DATASET"))
    _: KW_ONLY
    seeds: str | int | Sequence[int] | None = field(
        default=None, metadata=option("one training each", "N,...")
    )
    devices: int | str = field(default=1, metadata=option("devices to train on (or auto)", "N"))
    strategy: str = field(default="auto", metadata=option("Lightning's strategy for several"))
    logger: str = field(
        default="auto",
        metadata=option("auto, csv, tensorboard, none or a class: MODULE.CLASS", "NAME"),
    )

    def __post_init__(self) -> None:
        for name in str(self.logger).split(","):
            if name.strip() not in LOGGERS and "." not in name:
                hint = nearest(name, LOGGERS)
                raise RequestError(
                    f"--logger {name}: known loggers are {', '.join(LOGGERS)}{hint}, or the class "
                    "of one: lightning.pytorch.loggers.MLFlowLogger"
                )


LOGGERS = ("auto", "csv", "tensorboard", "none")
VERBS: dict[str, type[RunOptions]] = {"bench": BenchOptions, "train": TrainOptions}
O = TypeVar("O", bound=RunOptions)


def described(kind: type[RunOptions]) -> dict[str, tuple[dataclasses.Field[Any], Option]]:
    """The fields of a set of options with what is said about them, in the order of a call."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    return {
        n: (fields[n], fields[n].metadata["option"]) for n in inspect.signature(kind).parameters
    }


def others_with(name: str, verb: str) -> list[str]:
    """The other verbs that take the option ``name``."""
    return [v for v, kind in VERBS.items() if v != verb and name in described(kind)]


def takes(kind: Callable[P, O]) -> Callable[[Callable[[O], R]], Callable[P, R]]:
    """Let a function of a set of options be called with the options themselves.

    Type checkers and ``help`` see the fields of ``kind`` as its parameters.  An option that only
    another verb takes raises :class:`RequestError`, an unknown one ``TypeError``.
    """

    def decorate(run: Callable[[O], R]) -> Callable[P, R]:
        signature = inspect.signature(kind)

        @functools.wraps(run)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            verb = run.__name__
            for name in keywords:
                if name in signature.parameters:
                    continue
                if others := others_with(name, verb):
                    raise RequestError(
                        f"zsad.{verb} takes no {name}; zsad.{' and zsad.'.join(others)} does"
                    )
                hint = nearest(name, signature.parameters)
                raise TypeError(f"{verb}() got an unexpected keyword argument '{name}'{hint}")
            return run(kind(*args, **keywords))

        annotation = inspect.signature(run).return_annotation
        call.__signature__ = signature.replace(return_annotation=annotation)  # type: ignore[attr-defined]
        return call

    return decorate
