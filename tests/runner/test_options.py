"""The options of a run are written once: what is made of each field, and of one more."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import pickle
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad.cli import options as flags
from zsad.cli.main import build_parser, parse
from zsad.config.sections import COMMAND_LINE
from zsad.errors import RequestError
from zsad.runner import manifest
from zsad.runner.options import (
    VERBS,
    BenchOptions,
    RunOptions,
    TrainOptions,
    described,
    option,
    takes,
)
from zsad.runner.plan import Plan
from zsad.runner.request import build_request, request_of
from zsad.types import BackboneInfo

CALLS = {"bench": zsad.bench, "train": zsad.train}


def help_of(verb: str) -> str:
    (actions,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return str(actions.choices[verb].format_help())


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_field_is_a_flag_with_its_help_and_a_keyword(verb: str) -> None:
    text = " ".join(help_of(verb).split())
    parameters = inspect.signature(CALLS[verb]).parameters
    assert list(parameters) == list(described(VERBS[verb]))
    for name, (found, said) in described(VERBS[verb]).items():
        flag = f"--{name.replace('_', '-')}"
        assert (flag in text) is not said.python, flag
        assert said.python or said.help in text
        required = found.default is dataclasses.MISSING and found.default_factory is found.default
        assert (parameters[name].default is inspect.Parameter.empty) == required


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_the_command_line_and_python_mean_the_same(verb: str) -> None:
    """Every flag with a value of its own arrives in its field."""
    kind = VERBS[verb]
    words, expected = [verb], {}
    for name, (found, said) in described(kind).items():
        if said.python:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(found.default, bool):
            expected[name] = True
        else:
            expected[name] = "ray" if name == "launcher" else "csv" if name == "logger" else name
            words.append(expected[name])
    args = parse([*words, "clip.temperature=0.1"])
    given = kind(**flags.given(kind, args))
    assert {n: getattr(given, n) for n in expected} == expected
    assert given.overrides == ["clip.temperature=0.1"]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_what_belongs_to_another_verb_is_refused_in_one_line(verb: str) -> None:
    (other,) = set(VERBS) - {verb}
    foreign = [n for n in described(VERBS[other]) if n not in described(VERBS[verb])]
    assert foreign
    for name in foreign:
        with pytest.raises(RequestError, match=f"zsad.{verb} takes no {name}; zsad.{other} does"):
            CALLS[verb](**{name: "x"})  # type: ignore[operator]
        if not described(VERBS[other])[name][1].python:
            flag = f"--{name.replace('_', '-')}"
            with pytest.raises(
                RequestError, match=rf"unknown option '{flag}' \(it is one of `zsad {other}`\)"
            ):
                parse([verb, "--methods", "clip", *(["--on", "x"] * (verb == "train")), flag])


def test_a_misspelt_keyword_is_a_type_error_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"bench\(\) got .* 'datset' \(did you mean 'datasets'\?\)"):
        zsad.bench(datset="mvtec")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'on'"):
        zsad.train("filo")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launcher": "slurm"}, "--launcher slurm: known launchers are local, ray"),
        ({"ray_address": "auto"}, "--ray-address auto: needs --launcher ray"),
        ({"limit": 0}, "--limit 0: give at least 1"),
        ({"seeds": "0,0"}, "--seeds 0,0: give distinct"),
        ({"seeds": 2**32}, "--seeds 4294967296: no seed is above 4294967295"),
        ({"seeds": "9" * 400}, r"--seeds 9{40}\.\.\.9{10}: no seed"),
        ({"limit": 10**30}, "--limit 10{30}: no category has so many images"),
        ({"limit": "9" * 400}, r"--limit 9{40}\.\.\.9{10}: no category"),
        ({"limit": "9" * 5000}, r"--limit '9{40}\.\.\.9{10}': give a whole number"),
        ({"device": "tpu"}, "--device tpu: no device; give auto, cpu"),
        ({"plugins": "absent"}, "--plugins absent: no such folder"),
        (
            {"backbone": "zsad-tiny", "overrides": ["backbone.name=vit-l-14-336"]},
            "--backbone zsad-tiny and backbone.name=vit-l-14-336 set the same thing; give one",
        ),
        (
            {"weights": "a.pt", "overrides": {"backbone": {"weights": None}}},
            "--weights a.pt and backbone.weights=None set the same thing; give one of them",
        ),
        (
            {"launcher": "ray", "ray_address": "auto", "overrides": ["ray.address=other"]},
            "--ray-address auto and ray.address=other set the same thing; give one of them",
        ),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        zsad.bench("clip", "synthetic", **options)
    with pytest.raises(RequestError, match="--logger tensorbord: known loggers are auto, csv"):
        zsad.train("filo", "synthetic", logger="tensorbord")


def test_the_request_carries_the_options() -> None:
    request = build_request(methods="coop", datasets="synthetic", untrained=True, limit="3")
    assert isinstance(request.options, BenchOptions)
    assert (request.untrained, request.fresh, request.limit) == (True, False, 3)
    assert pickle.loads(pickle.dumps(request)).options == request.options
    options = TrainOptions("filo", "synthetic", offline=True)
    made = request_of(options, options.methods, options.on)
    assert (made.untrained, made.offline, made.datasets) == (False, True, ("synthetic",))


def test_a_request_knows_where_every_setting_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("winclip: {preset: paper}\nmetrics: {fpr_limit: 0.1}\n")
    request = build_request(
        methods="winclip",
        datasets="synthetic",
        backbone="zsad-tiny",
        config=file,
        overrides=["winclip.temperature=0.5", "run.batch_size=3"],
    )
    (column,) = request.columns
    where = {"preset": str(file), "temperature": "the command line"}
    assert {key: column.origins[key] for key in where} == where
    rest = set(column.origins.values()) - set(where.values())
    own = column.entry.origin
    assert rest <= {own, f"{own}, preset paper", f"protocol {request.protocol.name}", "schema"}
    assert own in rest
    assert request.origins["metrics.fpr_limit"] == str(file)
    assert request.origins["backbone.name"] == request.origins["run.batch_size"] == COMMAND_LINE
    assert request.origins["data.train_part"] == f"protocol {request.protocol.name}"
    assert request.origins["run.deterministic"] == "schema"


def test_a_record_names_every_option_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    options = BenchOptions("clip", seeds=(0, 1), results=tmp_path / "mine", config="/a/b.yaml")
    record = options.record()
    assert list(record) == [f.name for f in dataclasses.fields(options)]
    assert (record["results"], record["config"], record["seeds"]) == ("mine", "b.yaml", [0, 1])
    assert str(tmp_path) not in json.dumps(record)


# ------------------------------------------------------------------------- one more option
@dataclass(frozen=True)
class Coloured(BenchOptions):
    """One more option is this field."""

    _: KW_ONLY
    colour: str = field(default="grey", metadata=option("the colour of the bar", "NAME"))


def test_one_more_option_is_one_edit(tmp_path: Path) -> None:
    """It is a flag with a help text, a keyword, a part of the request and of the manifest."""
    parser = argparse.ArgumentParser()
    flags.of(parser, Coloured)
    assert "--colour NAME" in parser.format_help()
    assert "the colour of the bar" in parser.format_help()
    args = parser.parse_args(["--methods", "clip", "--datasets", "synthetic", "--colour", "red"])
    args.overrides = []
    given = flags.given(Coloured, args)

    @takes(Coloured)
    def call(options: Coloured) -> Any:
        return request_of(options, options.methods, options.datasets)

    assert inspect.signature(call).parameters["colour"].default == "grey"
    request = call(**given)
    assert request.options.colour == "red"
    info = BackboneInfo(**_some(BackboneInfo))
    finished = manifest.Finished(Plan(request, "w", True), info, {}, {}, {})
    assert manifest.manifest(finished)["request"]["colour"] == "red"


def _some(kind: type[Any]) -> dict[str, Any]:
    """A value for every field that needs one."""
    missing = dataclasses.MISSING
    needed = [f for f in dataclasses.fields(kind) if f.default is f.default_factory is missing]
    return {f.name: "" if f.type == "str" else 1 for f in needed}


def test_shared_options_stand_once() -> None:
    shared = set(described(RunOptions))
    assert shared <= set(described(BenchOptions))
    assert shared <= set(described(TrainOptions))
    for kind in (BenchOptions, TrainOptions):
        again = set(inspect.get_annotations(kind)) & shared
        assert again <= {"seeds"}, "only what a seed is for differs"
