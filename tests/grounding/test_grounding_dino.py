"""groundingdino-py for real: random weights, a small BERT, from a picture to a damped map."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from zsad.errors import DataError, RequestError, WeightsError
from zsad.grounding.interface import DetectorOptions
from zsad.grounding.provider import provider
from zsad.maps import suppress_boxes
from zsad.method import BoxRequest
from zsad.methods.filo.boxes import locate
from zsad.methods.filo.config import Grounding
from zsad.types import Category

pytest.importorskip("groundingdino", reason="groundingdino-py is an optional extra")

ASKED = ("anomaly", "damage", "crack")
CATEGORY = Category("", "bottle", "bottle")


def picture() -> Image.Image:
    image = Image.new("RGB", (300, 260), (120, 90, 30))
    image.paste((250, 250, 250), (40, 60, 80, 90))
    return image


def request(encoder: Path, **options: object) -> BoxRequest:
    base = {
        **{"enabled": True, "detector": "groundingdino", "weights": "random"},
        **{"text_encoder": str(encoder), "short_side": 256},
    }
    return BoxRequest({"bottle": ASKED}, {**base, **options})


def test_picture_to_boxes_to_position_to_damped_map(encoder: Path, tmp_path: Path) -> None:
    found = provider(request(encoder), cache_dir=tmp_path)
    (boxes,) = found.boxes_of_pictures([picture()], [CATEGORY])
    assert boxes is not None
    assert found.info["detector"] == "groundingdino-py"
    corners = torch.tensor(boxes.boxes)
    assert corners.shape[1] == 4
    assert bool(((corners >= 0) & (corners <= 1)).all())
    assert all(0 <= s <= 1 for s in boxes.scores)
    assert any(word in phrase for phrase in boxes.phrases for word in ASKED)

    place = locate(boxes, ASKED, Grounding(), "exact", 70)
    assert place.kept is not None
    assert place.position in range(9)
    place.kept.boxes[:] = [place.best[0]]  # type: ignore[index]  # random weights cover everything
    flat = torch.ones(1, 70, 70)
    damped = suppress_boxes(flat, [place.kept], 0.7)
    cx, cy = (min(69, int(70 * c)) for c in place.kept.boxes[0][:2])
    assert float(damped[0, cy, cx]) == 1
    assert float(damped.min()) == pytest.approx(0.7)

    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 1
    again = provider(request(encoder), cache_dir=tmp_path)
    again._detector = _never
    assert again.boxes_of_pictures([picture()], [CATEGORY]) == [boxes]


@pytest.mark.slow
def test_weights_are_read_from_a_file_safely(encoder: Path, tmp_path: Path) -> None:
    from zsad.grounding import grounding_dino as gd
    from zsad.grounding import official_state

    torch.manual_seed(1)
    model = gd.build("swin_t", encoder)
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    path = tmp_path / "dino.pth"
    torch.save({"model": {**state, "module.label_enc.weight": torch.zeros(2)}}, path)
    assert official_state.is_state(torch.load(path, weights_only=True))
    lines = gd.key_report(path, str(encoder))
    assert lines[0] == "Grounding DINO, swin_t"
    assert "ignored: label_enc.weight" in lines
    options = DetectorOptions(weights=str(path), text_encoder=str(encoder))
    loaded = gd.handle(options).load()
    weight = loaded.model.feat_map.weight  # type: ignore[attr-defined]
    assert torch.equal(weight, model.feat_map.weight)
    partial = {k: v for k, v in state.items() if "decoder" not in k}
    torch.save(partial, path)
    with pytest.raises(WeightsError, match="tensors are missing"):
        gd.GroundingDino.load(options, path, encoder)


def test_missing_weights_are_an_error_or_a_note(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSAD_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    # A file that was named must be there, whatever `enabled` says.
    for enabled in (True, "auto"):
        with pytest.raises(RequestError, match="no such file"):
            provider(request(encoder, weights="gone.pth", enabled=enabled))
    monkeypatch.setattr("zsad.backbones.locate.default_folder", lambda: tmp_path)
    lenient = provider(request(encoder, weights="stock", enabled="auto"))
    assert lenient.info["source"] == "none"
    assert "no Grounding DINO weights here" in lenient.info["reason"]
    assert lenient.boxes_of_pictures([picture()], [CATEGORY]) == [None]
    with pytest.raises(WeightsError, match="text_encoder"):
        provider(request(tmp_path / "none"))


def test_a_file_that_is_no_detector_is_refused(encoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    found = provider(request(encoder, weights=str(path)), cache_dir=tmp_path)
    with pytest.raises(WeightsError, match="no Grounding DINO state"):
        found.boxes_of_pictures([picture()], [CATEGORY])


def test_a_failing_detector_is_an_error_or_no_boxes(tmp_path: Path) -> None:
    from tests.grounding import detectors

    options = {"detector": f"{detectors.__name__}:fails", "enabled": True}
    with pytest.raises(DataError, match="detector failed on picture: no light"):
        provider(BoxRequest({"bottle": ASKED}, options)).boxes_of_pictures([picture()], [CATEGORY])
    options["enabled"] = "auto"
    found = provider(BoxRequest({"bottle": ASKED}, options))
    assert found.boxes_of_pictures([picture()], [CATEGORY]) == [None]
    assert found.info["unanswered"] == 1


def _never(image: object, phrases: object) -> None:
    raise AssertionError("an answer that is cached was asked for again")
