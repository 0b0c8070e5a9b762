"""Where boxes come from: files, functions, the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from zsad.errors import DataError, RequestError
from zsad.grounding import weight_files
from zsad.grounding.cache import BoxCache
from zsad.grounding.dino import caption, picture, read_answer
from zsad.grounding.interface import DetectorOptions
from zsad.grounding.provider import provider
from zsad.method import BoxRequest
from zsad.results.records import CellRecord
from zsad.results.store import ResultStore
from zsad.runner.plan import build_plan
from zsad.runner.request import build_request
from zsad.types import Boxes, Category, Sample

CATEGORY = Category("mvtec", "bottle", "bottle")
ANSWER = {"boxes": [[0.5, 0.5, 0.2, 0.2]], "scores": [0.4], "phrases": ["crack"]}
BOXES = Boxes.from_dict(ANSWER)


def ask(**options: object) -> BoxRequest:
    return BoxRequest({"bottle": ("anomaly", "crack")}, options)


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("key", ["broken/000.png", "mvtec/broken/000.png"])
def test_a_file_answers_for_samples(tmp_path: Path, key: str) -> None:
    image = tmp_path / "000.png"
    Image.new("RGB", (8, 8)).save(image)
    sample = Sample(str(image), 1, "bottle", uid="broken/000.png")
    other = Sample(str(image), 0, "bottle", uid="good/000.png")
    file = write(tmp_path / "boxes.json", {key: ANSWER})
    found = provider(ask(file=file, enabled="auto"))
    assert found.boxes([sample, other], [CATEGORY] * 2) == [BOXES, None]
    assert (found.info["answered"], found.info["unanswered"]) == (1, 1)
    found.boxes([other], [CATEGORY])  # asked again: still one picture
    assert found.account("mvtec", "bottle")["unanswered"] == 1
    assert found.account("mvtec", "bottle")["answered"] == 1
    assert found.account("mvtec", "grid") == {**found.info, "answered": 0, "unanswered": 0}
    with pytest.raises(DataError, match=r"boxes.json: no boxes of good/000.png"):
        provider(ask(file=file, enabled=True)).boxes([other], [CATEGORY])


def test_a_file_answers_for_pictures_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "boxes.json", {"a.png": ANSWER})
    found = provider(ask(file=file)).boxes_of_pictures(
        [Image.new("RGB", (4, 4))], [CATEGORY], ["photos/a.png"]
    )
    assert found == [BOXES]


@pytest.mark.parametrize(
    "content,message",
    [
        ([], "must map image names"),
        ({"a": {"boxes": []}}, "'a' needs lists"),
        ({"a": {**ANSWER, "scores": []}}, "1 box, 0 scores"),
        ({"a": {**ANSWER, "boxes": [[30, 40, 20, 20]]}}, "fractions of the image"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        provider(ask(file=write(tmp_path / "b.json", content)))


def test_a_missing_file_is_an_error_even_with_auto(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        provider(ask(file=str(tmp_path / "gone.json"), enabled="auto"))


def test_switched_off() -> None:
    found = provider(ask(enabled=False))
    assert found.boxes_of_pictures([Image.new("RGB", (4, 4))], [CATEGORY]) == [None]
    assert found.info["reason"] == "switched off"


def test_a_function_is_a_detector() -> None:
    image = Image.new("RGB", (4, 4))
    found = provider(ask(detector="tests.grounding.detectors:whole", enabled=True))
    assert found.boxes_of_pictures([image], [CATEGORY]) == [
        Boxes([[0.5, 0.5, 1.0, 1.0]], [0.5], ["anomaly"])
    ]
    with pytest.raises(RequestError, match="must return Boxes"):
        provider(ask(detector="tests.grounding.detectors:wrong")).boxes_of_pictures(
            [image], [CATEGORY]
        )
    with pytest.raises(RequestError, match="did you mean 'groundingdino'"):
        provider(ask(detector="groundingdin", enabled=True))


def test_cache_depends_on_image_prompt_and_detector(tmp_path: Path) -> None:
    cache = BoxCache("detector/a", tmp_path)
    cache.put("1" * 64, ("crack",), BOXES)
    assert cache.get("1" * 64, ("crack",)) == BOXES
    assert cache.get("2" * 64, ("crack",)) is None
    assert cache.get("1" * 64, ("dent",)) is None
    assert BoxCache("detector/b", tmp_path).get("1" * 64, ("crack",)) is None
    cache.path("1" * 64, ("crack",)).write_text("{half")
    assert cache.get("1" * 64, ("crack",)) is None


def test_caption_and_picture() -> None:
    assert caption(["Anomaly", "burn mark"]) == "anomaly . burn mark."
    assert picture(Image.new("RGB", (300, 200)), 100, 1333).shape == (3, 100, 150)
    assert picture(Image.new("RGB", (1000, 100)), 518, 1333).shape == (3, 133, 1330)
    grey = picture(Image.new("RGB", (10, 10), (128, 128, 128)), 10, 20)
    assert float(grey[0, 0, 0]) == pytest.approx((128 / 255 - 0.485) / 0.229)


def test_an_answer_holds_all_above_the_threshold_and_the_best_in_any_case() -> None:
    logits = torch.tensor([[-4.0, 2.0], [-4.0, -3.0], [0.0, -4.0]])
    boxes = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    words = ["dent", "crack"]

    def phrase(above: torch.Tensor) -> str:
        return " ".join(words[i] for i in above.nonzero().flatten().tolist())

    found = read_answer(logits, boxes, phrase, DetectorOptions())
    assert found.phrases == ["crack", "dent"]
    torch.testing.assert_close(torch.tensor(found.boxes), boxes[[0, 2]])
    strict = read_answer(logits - 5, boxes, phrase, DetectorOptions())
    assert strict.phrases == [""]
    torch.testing.assert_close(torch.tensor(strict.boxes), boxes[:1])


def test_a_plan_names_the_boxes_of_the_default_detector_by_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers", reason="transformers is an optional extra")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("zsad.backbones.locate.default_folder", lambda: tmp_path)
    ask = {"text_encoder": str(tmp_path / "bert")}
    assert weight_files.identity(ask, "mvtec") == ""  # no detector here: the cell of before
    (tmp_path / "groundingdino_swint_ogc.pth").write_bytes(b"stock")
    stock = weight_files.identity(ask, "mvtec")
    assert stock == f"transformers/{hashlib.sha256(b'stock').hexdigest()}"
    for other in ({"enabled": False}, {"file": "b.json"}, {"detector": "groundingdino"}):
        assert weight_files.identity({**ask, **other}, "mvtec") == ""
    (tmp_path / "v.pth").write_bytes(b"of visa")
    named = {**ask, "weights": {"visa": str(tmp_path / "v.pth"), "default": "stock"}}
    assert weight_files.identity(named, "mvtec") == stock
    assert weight_files.identity(named, "visa") not in ("", stock)


def test_a_cell_without_boxes_is_not_served_once_its_detector_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint of a cell of groundingdino-py does not hold its weights; its record does."""
    pytest.importorskip("groundingdino", reason="groundingdino-py is an optional extra")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("zsad.backbones.locate.default_folder", lambda: tmp_path)
    asked = build_request(
        methods="filo",
        datasets="synthetic",
        backbone="zsad-tiny",
        results=tmp_path / "results",
        limit=2,
        untrained=True,
        overrides=[
            "filo.grounding.detector=groundingdino",
            f"filo.grounding.text_encoder={tmp_path / 'bert'}",
        ],
    )
    store = ResultStore(asked.results)

    def stored(**boxes: object) -> bool:
        """Whether a plan takes a record with these boxes for the cell."""
        key = next(iter(build_plan(asked, store, "weights", demo=True).cells()))[0]
        figures: dict[str, Any] = {"metrics": {"image_auroc": 1.0}, "undefined": {}, "seconds": {}}
        info = {"boxes": boxes}
        figures |= {"n_normal": 1, "n_anomalous": 1}
        store.put(CellRecord(**vars(key), **figures, info=info))
        found = dict(build_plan(asked, store, "weights", demo=True).cells())[key]
        plan = build_plan(asked, store, "weights", demo=True).datasets[0]
        assert plan.is_done(store, key) == found
        return found

    assert stored(source="none")  # nothing would answer now, either
    (tmp_path / "groundingdino_swint_ogc.pth").write_bytes(b"stock")
    digest = hashlib.sha256(b"stock").hexdigest()
    assert not stored(source="none")
    assert not stored(source="detector", weights_sha256="other")
    assert stored(source="detector", weights_sha256=digest)
    assert stored(source="detector")  # nothing is known of its weights
    default = {"text_encoder": str(tmp_path / "bert")}
    assert not weight_files.outdated(default, "mvtec", {"source": "none"})
    for other in ({"enabled": False}, {"file": "b.json"}, {"detector": "a:b"}):
        named = {**default, "detector": "groundingdino", **other}
        assert not weight_files.outdated(named, "mvtec", {"source": "none"})


def test_boxes_of_a_file_that_has_changed_are_other_boxes(tmp_path: Path) -> None:
    """The finding: a file of boxes was edited, and the figures of the earlier boxes were served."""
    path = tmp_path / "boxes.json"
    path.write_text("{}")
    options = {"file": str(path)}
    known = {"source": "file", "sha256": hashlib.sha256(b"{}").hexdigest()}
    assert not weight_files.outdated(options, "mvtec", known)
    assert not weight_files.outdated(options, "mvtec", {"source": "file"})  # of an earlier version
    path.write_text('{"a.png": {"boxes": [], "scores": [], "phrases": []}}')
    assert weight_files.outdated(options, "mvtec", known)
    assert not weight_files.outdated({**options, "enabled": False}, "mvtec", known)


def test_weights_by_target_name_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    (tmp_path / "b.pth").touch()
    one = {"visa": str(tmp_path / "a.pth")}
    assert weight_files.choose(one, "visa") == str(tmp_path / "a.pth")
    with pytest.raises(RequestError, match="no file for the target mvtec"):
        weight_files.choose(one, "mvtec")
    with pytest.raises(RequestError, match="these pictures belong to none; give one FILE"):
        weight_files.choose(one, "")
    with pytest.raises(RequestError, match=r"which of its 2 files .* for visa\? \(a.pth, b.pth\)"):
        weight_files.choose(str(tmp_path), "visa")
    (tmp_path / "b.pth").unlink()
    assert weight_files.choose(str(tmp_path), "visa") == str(tmp_path / "a.pth")
