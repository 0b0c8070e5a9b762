"""Where nobody asked for a training set, the state that comes with a method is what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zsad
from zsad import registry
from zsad.checkpoints import bundled
from zsad.checkpoints.account import account_of
from zsad.results.store import ResultStore
from zsad.runner.auxiliary import of_state, training_of
from zsad.runner.plan import auxiliary_of, build_plan
from zsad.runner.request import build_request
from zsad.training.identity import checkpoint_path

METHOD = "faprompt"  # its state comes along
TAKES = "takes the state that comes with zsad (states/zsad-tiny.safetensors)"


def row(results: Path, limit: int | None = 2, **more: Any) -> dict[str, Any]:
    """What a dry run says of the method on generated pictures."""
    options: dict[str, Any] = {"backbone": "zsad-tiny", "results": results, "dry_run": True}
    found = zsad.bench(METHOD, "synthetic", limit=limit, **options, **more)
    return dict(found["rows"][0])


@pytest.mark.parametrize("limit", [2, None])
def test_it_is_taken_whatever_the_limit(limit: int | None, tmp_path: Path) -> None:
    meta = account_of(bundled.place_of(registry.method(METHOD), "zsad-tiny"))
    assert meta is not None
    assert meta.trained_on is not None
    found = row(tmp_path, limit)
    assert found["does"] == TAKES
    assert found["images"] == len(meta.trained_on.uids)


@pytest.mark.parametrize(
    "asked",
    [
        {"trained_on": "synthetic"},  # then it is that training, on as many images as the limit has
        {"seeds": "0,1"},  # a mean over seeds is one of equal trainings
        {"seeds": "1"},
        {"overrides": ["faprompt.train.epochs=1"]},
    ],
    ids=["training set", "seeds", "other seed", "setting"],
)
def test_another_training_than_the_states_is_made(asked: dict[str, Any], tmp_path: Path) -> None:
    found = row(tmp_path, **asked)
    assert found["does"].startswith("trains now")
    told = "`faprompt.checkpoint=bundled` takes the state that comes with zsad" in found["does"]
    assert told == ("trained_on" not in asked)
    assert found["images"] == 8


def test_what_the_user_trained_goes_before_it(tmp_path: Path) -> None:
    request = build_request(METHOD, "synthetic", backbone="zsad-tiny", limit=2, results=tmp_path)
    meta = account_of(bundled.place_of(registry.method(METHOD), "zsad-tiny"))
    assert meta is not None
    plan = build_plan(request, ResultStore(tmp_path), meta.backbone_sha256, demo=True)
    (column,) = request.columns
    taken = auxiliary_of(plan, column, "synthetic")
    plain = plan.auxiliaries["synthetic", taken.part, ""]
    assert not isinstance(plain, Exception)
    assert len(plain.samples) < len(taken.samples)
    assert of_state(request, column, plain, meta.backbone_sha256) is not None
    mine = training_of(request, column, plain, meta.backbone_sha256, 0)
    path = checkpoint_path(tmp_path, METHOD, mine)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whatever lies there is read, and refused, by name")
    assert of_state(request, column, plain, meta.backbone_sha256) is None
    assert row(tmp_path)["does"] == f"takes {path.name} of the results folder"


def test_other_weights_of_the_backbone_do_not_fit(tmp_path: Path) -> None:
    request = build_request(METHOD, "synthetic", backbone="zsad-tiny", limit=2, results=tmp_path)
    plan = build_plan(request, ResultStore(tmp_path), "random", demo=True)
    assert len(auxiliary_of(plan, request.columns[0], "synthetic").samples) == 8
