"""What every method promises about :meth:`Method.score`, and what the scorer makes of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import zsad
from zsad import maps as dense
from zsad import registry
from zsad.backbones import Backbone
from zsad.backbones.batch_size import Portions
from zsad.errors import CellError
from zsad.grounding import file as box_file
from zsad.inference.loaded_method import LoadedMethod
from zsad.inference.request import category_of
from zsad.method import Method, new_method
from zsad.scoring import Means, Scorer, encode
from zsad.types import BuiltMaps, ImageFeatures, ScoreContext, Scored, Scores

OWN = [e for e in registry.select_methods("all") if e.target.startswith("zsad.methods.")]
COUNT = 4


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return zsad.load_method("clip", backbone="zsad-tiny", device="cpu").backbone


def settings_of(name: str) -> list[dict[str, Any]]:
    """The defaults of a method, and what changes how it scores."""
    more: dict[str, list[dict[str, Any]]] = {
        "winclip": [{"shots": 2}],
        "alfa": [{"shots": 2}],
        "anovl": [{"adapter": {"enabled": True, "steps": 2}}],
    }
    return [{}, *more.get(name, [])]


CASES = [(e.name, s) for e in OWN for s in settings_of(e.name)]


def prepared(name: str, settings: dict[str, Any], tiny: Backbone) -> tuple[Scorer, Any, Any]:
    """A method with the features of four pictures of two things, and its context."""
    entry = registry.method(name)
    method = new_method(entry, entry.resolve(("test", settings)), tiny.info)
    scorer = Scorer(method, tiny)
    generator = torch.Generator().manual_seed(11)
    images = torch.randn(COUNT + 2, 3, scorer.image_size, scorer.image_size, generator=generator)
    (_, features), *_ = encode(tiny, images, scorer.request, Portions())
    categories = [category_of(n) for n in ("bottle", "metal nut", "bottle", "bottle")]
    known = features.select(slice(COUNT, None))
    features = features.select(slice(0, COUNT))
    context = scorer.context(
        categories,
        uids=[f"{i}.png" for i in range(COUNT)],
        references={c.key: known for c in categories} if method.shots else {},
        population=features if method.transductive else None,
        population_uids=[f"{i}.png" for i in range(COUNT)],
    )
    return scorer, features, context


def frozen(value: Any) -> Any:
    """All that a value holds, as something that can be compared."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.detach().double().flatten().tolist()
    if isinstance(value, nn.Module):
        state = getattr(value, "__getstate__", lambda: vars(value))()  # without what is derived
        return {k: frozen(v) for k, v in state.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: frozen(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): frozen(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(v) for v in value]
    return value if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def close(name: str, a: Scored, b: Scored) -> None:
    """Equal to 1e-6, but for methods that encode text anew for a batch: the last bits of a
    cosine (6e-8), enlarged a hundredfold by a softmax at temperature 0.01."""
    close_to = 1e-5 if name in ("cocoop", "filo") else 1e-6
    torch.testing.assert_close(a.image_scores, b.image_scores, atol=close_to, rtol=0)
    torch.testing.assert_close(a.maps.final, b.maps.final, atol=close_to, rtol=0)
    assert a.scores.info.keys() == b.scores.info.keys()
    for name, values in a.scores.info.items():
        torch.testing.assert_close(values, b.scores.info[name])


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda v: v if v else "-")
def test_scoring_is_a_pure_function_of_each_image(
    name: str, settings: dict[str, Any], tiny: Backbone
) -> None:
    """Twice gives the same and changes nothing; in halves gives what the whole gives, except
    for methods that say otherwise; explaining some images gives what explaining all gives."""
    scorer, features, context = prepared(name, settings, tiny)
    method = scorer.method.eval()
    before = frozen(method)
    ((rows, first),) = scorer.score(features, context)
    ((_, second),) = scorer.score(features, context)
    assert rows == slice(0, COUNT)
    assert frozen(method) == before
    assert torch.equal(first.image_scores, second.image_scores)
    assert torch.equal(first.maps.final, second.maps.final)
    assert not method.carries
    scorer.portions = Portions(most=2)
    halves = list(scorer.score(features, context))
    assert [part for part, _ in halves] == [slice(0, 2), slice(2, 4)]
    for part, scored in halves:  # also of a transductive method, which has its population
        close(name, scored, first.select(part))
    reasons = scorer.explain(first, 3)
    assert frozen(method) == before
    assert [frozen(r) for r in scorer.explain(first.select([3, 1]), 3)] == [
        frozen(reasons[3]),
        frozen(reasons[1]),
    ]


# -------------------------------------------------------------------------- rows of a batch
def scored(count: int, **parts: Any) -> Scored:
    maps = torch.arange(count * 4.0).reshape(count, 2, 2)
    scores = Scores([maps], maps[:, 0, 0], "values", parts, info={"kept": maps[:, 1, 1]})
    context = ScoreContext([category_of(str(i)) for i in range(count)], {}, uids=list("abcd"))
    return Scored(
        ImageFeatures((2, 2), {}), context, scores, BuiltMaps(maps, maps + 1), maps[:, 0, 0]
    )


def test_rows_of_a_scored_batch_stay_together() -> None:
    chosen = scored(4, named=["p", "q", "r", "s"], none=None, rows=torch.eye(4)).select([2, 0])
    assert chosen.batch_size == 2
    assert chosen.image_scores.tolist() == [8.0, 0.0]
    assert chosen.context.uids == ["c", "a"]
    assert [c.key for c in chosen.context.categories] == ["2", "0"]
    assert chosen.scores.parts["named"] == ["r", "p"]
    assert chosen.scores.parts["none"] is None
    assert chosen.scores.parts["rows"].argmax(1).tolist() == [2, 0]
    assert chosen.scores.info["kept"].tolist() == [11.0, 3.0]
    assert chosen.maps.unsuppressed[0, 0, 0] == 9.0
    with pytest.raises(ValueError, match="2 entries for 4 images"):
        scored(4, pair=torch.eye(2)).select([0])


def test_means_over_batches() -> None:
    means = Means()
    assert means.figures() == {}
    means.add(scored(4))
    means.add(scored(4).select([3]))
    assert means.figures() == {"images": 5, "kept": (3 + 7 + 11 + 15 + 15) / 5}


# ------------------------------------------------------------------------- out of memory
@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An encoder that runs out of memory above two images; yields the sizes it was asked for."""
    asked: list[int] = []
    whole = Backbone.encode_image

    def encode_image(self: Backbone, images: Tensor, request: Any) -> ImageFeatures:
        asked.append(len(images))
        if len(images) > 2:
            raise MemoryError
        return whole(self, images, request)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_image", encode_image)
        yield asked


def pictures(count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(0, 255, (96, 96, 3), generator=generator, dtype=torch.uint8).numpy()
        for _ in range(count)
    ]


def equal(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.image_score == pytest.approx(b.image_score, abs=1e-5)
        torch.testing.assert_close(
            torch.from_numpy(a.anomaly_map), torch.from_numpy(b.anomaly_map), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("name", ["clip", "musc", "patchcore"])
def test_predictions_survive_an_encoder_without_memory(
    name: str, request: pytest.FixtureRequest
) -> None:
    loaded = zsad.load_method(name, backbone="zsad-tiny", image_size=64, device="cpu")
    known = pictures(12)[11:]
    tensor = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    options: dict[str, Any] = {"references": known} if loaded.method.shots else {}
    expected = loaded.predict(pictures(11), "bottle", **options)
    limits = loaded.calibrate(pictures(5), "bottle", **options)
    direct = loaded.predict_tensor(tensor, "bottle", **options)

    asked = request.getfixturevalue("narrow")
    equal(loaded.predict(pictures(11), "bottle", **options), expected)
    assert sum(size > 2 for size in asked) == 2  # 8, then 4; then it has learned
    found = loaded.calibrate(pictures(5), "bottle", **options)
    assert found.image == pytest.approx(limits.image, abs=1e-5)
    assert found.pixel == pytest.approx(limits.pixel, abs=1e-5)
    equal(loaded.predict_tensor(tensor, "bottle", **options), direct)


def test_predictions_survive_a_method_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = zsad.load_method("clip", backbone="zsad-tiny", image_size=64, device="cpu")
    expected = loaded.predict(pictures(5), "bottle")
    whole = type(loaded.method).score

    def score(self: Method, features: ImageFeatures, context: ScoreContext) -> Scores:
        if features.batch_size > 2:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, features, context)

    monkeypatch.setattr(type(loaded.method), "score", score)
    equal(loaded.predict(pictures(5), "bottle"), expected)
    limits = loaded.calibrate(pictures(5), "bottle")
    assert limits.image is not None


def test_a_value_that_is_not_a_number_names_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = zsad.load_method("clip", backbone="zsad-tiny", image_size=64, device="cpu")

    def image_score(self: Method, scores: Scores, built: BuiltMaps) -> Tensor:
        return torch.where(torch.arange(len(scores.image)) == 1, torch.nan, scores.image)

    monkeypatch.setattr(type(loaded.method), "image_score", image_score)
    with pytest.raises(CellError, match="clip: not-a-number in the map or score of picture 2; try"):
        loaded.predict(pictures(3), "bottle")


@pytest.mark.parametrize(
    ("value", "refused"), [(torch.nan, True), (-torch.inf, True), (1e38, False)], ids=str
)
def test_every_pixel_is_looked_at(
    value: float, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large values are numbers, although their sum is none."""
    loaded = zsad.load_method("clip", backbone="zsad-tiny", image_size=64, device="cpu")
    whole = dense.build_maps

    def planted(*words: Any) -> BuiltMaps:
        built = whole(*words)
        built.final[2, 5:7, 3:20] = value
        return built

    def image_score(self: Method, scores: Scores, built: BuiltMaps) -> Tensor:
        return scores.image

    monkeypatch.setattr(dense, "build_maps", planted)
    monkeypatch.setattr(type(loaded.method), "image_score", image_score)
    if not refused:
        assert len(loaded.predict(pictures(3), "bottle")) == 3
        return
    with pytest.raises(CellError, match="not-a-number in the map or score of picture 3"):
        loaded.predict(pictures(3), "bottle")


# --------------------------------------------------------------------------------- boxes
def test_a_file_of_boxes_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "boxes.json"
    answer = {"boxes": [[0.5, 0.5, 0.2, 0.2]], "scores": [0.9], "phrases": ["anomaly"]}
    names = []
    for i, picture in enumerate(pictures(10)):  # two batches, two names
        names.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(picture).save(names[-1])
    path.write_text(json.dumps({f"{i}.png": answer for i in range(10)}))
    reads: list[Path] = []
    read = box_file.read_json

    def counted(file: Path) -> Any:
        reads.append(file)
        return read(file)

    monkeypatch.setattr(box_file, "read_json", counted)
    loaded = zsad.load_method(
        "filo",
        backbone="zsad-tiny",
        image_size=64,
        device="cpu",
        untrained=True,
        overrides={"grounding": {"enabled": True, "file": str(path)}},
    )
    words = ["bottle"] * 9 + ["metal nut"]
    found = loaded.predict(names, words)
    again = loaded.predict(names, words)
    assert reads == [path]
    assert all(any(e.source == "detector" for e in p.reasons) for p in found)
    equal(found, again)
    given = LoadedMethod.predict(loaded, names, words, boxes=[answer] * 10)
    equal(given, found)
