"""Methods that carry state from image to image: in order, whole, anew for every category."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import zsad
from tests.runner.conftest import PLUGINS, SIZE
from zsad import registry
from zsad.backbones import Backbone
from zsad.data.index import load_index
from zsad.types import Tap

Bench = Callable[..., dict[str, Any]]


def scores(root: Path) -> dict[str, list[float]]:
    """Image scores by category, in the order of the index."""
    return {
        path.stem: pd.read_parquet(path)["score"].tolist()
        for path in sorted((root / "scores" / "drift").rglob("*.parquet"))
    }


def by_hand(tokens: Tensor) -> list[float]:
    """Distance of every class token to the mean of those before it."""
    found = [float(tokens[0].norm())]
    for i in range(1, len(tokens)):
        found.append(float((tokens[i] - tokens[:i].mean(0)).norm()))
    return found


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_state_goes_from_image_to_image_and_begins_anew(
    batch: int, bench: Bench, tmp_path: Path, definition: Path, weights: Path
) -> None:
    document = bench("drift", overrides=[f"run.batch_size={batch}"])
    assert not document["failed"]
    found = scores(tmp_path / "results")
    assert found.keys() == {"bolt", "cloth"}
    loaded = zsad.load_method(
        "drift", backbone="file", weights=weights, image_size=SIZE, device="cpu"
    )
    files = {s.uid: s.image for s in load_index(str(definition)).samples}
    paths = {}
    for category, values in found.items():
        table = next((tmp_path / "results" / "scores").rglob(f"{category}.parquet"))
        paths[category] = [files[u] for u in pd.read_parquet(table)["uid"]]
        tensor = torch.stack([loaded.pictures.preprocess(_open(p)) for p in paths[category]])
        features = loaded.backbone.encode_image(tensor, loaded.request)
        assert values == pytest.approx(by_hand(features[Tap("cls")]), abs=1e-4)
        direct = loaded.predict_tensor(tensor, category)
        assert [p.image_score for p in direct] == pytest.approx(values, abs=1e-4)
    # A prediction carries it, too: by class name, from picture to picture of one call.
    mixed = [p for pair in zip(paths["bolt"], paths["cloth"]) for p in pair]
    predicted = loaded.predict(mixed, ["bolt", "cloth"] * 8)
    assert [p.image_score for p in predicted[::2]] == pytest.approx(found["bolt"], abs=1e-4)
    assert [p.image_score for p in predicted[1::2]] == pytest.approx(found["cloth"], abs=1e-4)


def _open(path: str) -> Any:
    from zsad.inference.pictures import open_picture

    return open_picture(path)


def test_it_is_never_given_a_part_of_a_batch(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder without memory makes no difference; a method without memory fails its cell."""
    whole = Backbone.encode_image
    bench("drift", overrides=["run.batch_size=8"], results=tmp_path / "plain")

    def encode_image(self: Backbone, images: Tensor, request: Any) -> Any:
        if len(images) > 3:
            raise MemoryError
        return whole(self, images, request)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_image", encode_image)
        assert not bench("drift", overrides=["run.batch_size=8"])["failed"]
    plain = scores(tmp_path / "plain")
    for category, values in scores(tmp_path / "results").items():
        assert values == pytest.approx(plain[category], abs=1e-4)

    drift = registry.method("drift").load()
    score = drift.score
    asked: list[int] = []

    def short(self: Any, features: Any, context: Any) -> Any:
        asked.append(features.batch_size)
        if context.categories[0].key == "cloth" and context.carry:
            raise torch.OutOfMemoryError("out of memory")
        return score(self, features, context)

    monkeypatch.setattr(drift, "score", short)
    document = bench("drift,clip", overrides=["run.batch_size=4"], results=tmp_path / "short")
    (failure,) = document["failed"]
    assert failure["cell"]["category"] == "cloth"
    assert "drift: out of memory with a batch of 1, and it carries state" in failure["error"]
    # never a part of a batch; then the category anew, image by image, up to the second one
    assert asked == [4, 4, 4, 4, 1, 1]


def test_one_picture_that_fails_leaves_the_others_what_was_carried(
    bench: Bench, definition: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add_plugins(PLUGINS)
    loaded = zsad.load_method(
        "drift", backbone="file", weights=weights, image_size=SIZE, device="cpu"
    )
    samples = [s.image for s in load_index(str(definition)).samples][:4]
    without = loaded.predict([samples[0], *samples[2:]], "bolt")
    score, calls = type(loaded.method).score, []

    def second_fails(self: Any, features: Any, context: Any) -> Any:
        calls.append(features.batch_size)
        if len(calls) == 2:
            raise ArithmeticError("once")
        return score(self, features, context)

    monkeypatch.setattr(type(loaded.method), "score", second_fails)
    found = list(loaded.stream(samples, "bolt", keep_errors=True))
    assert [bool(p.error) for p in found] == [False, True, False, False]
    kept = [p.image_score for p in found if not p.error]
    assert kept == pytest.approx([p.image_score for p in without], abs=1e-5)
    assert calls == [1, 1, 1, 1]
