"""A prediction by hand: as a mapping, as a picture, in a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsad.errors import DataError
from zsad.inference.pictures import failed
from zsad.inference.prediction import Prediction
from zsad.runtime.thresholds import Thresholds
from zsad.types import Explanation

EVIL = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def prediction(tmp_path: Path) -> Prediction:
    """Of a grey picture with a hot corner."""
    path = tmp_path / "nut.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(path)
    values = np.zeros((12, 16), np.float32)
    values[:4, :4] = 1
    return Prediction(
        0.75,
        values,
        [Explanation(f"{EVIL} a scratch", 0.3)],
        path=str(path),
        thresholds=Thresholds(0.5, 0.5),
        size=(48, 64),
        made_by={"mark": "random weights"},
    )


def test_it_is_a_mapping_ready_for_json(prediction: Prediction) -> None:
    said = json.loads(json.dumps(prediction.to_dict()))
    assert said["image_score"] == 0.75
    assert said["anomalous"] is True
    assert said["regions"][0]["box"] == [0, 0, 16, 16]
    assert said["map_max"] == 1
    assert failed("a.png", "gone").to_dict() == {"path": "a.png", "error": "gone"}


def test_its_picture_is_hot_where_the_map_is(prediction: Prediction, tmp_path: Path) -> None:
    shown = np.asarray(prediction.overlay()).astype(int)
    assert shown.shape == (48, 64, 3)
    assert np.ptp(shown[3, 3]) > 60  # coloured
    assert np.ptp(shown[20, 50]) == 0  # grey as it was
    saved = prediction.save(tmp_path / "nut.heat.png")
    with Image.open(saved) as image:
        assert image.size == (64, 48)
    prediction.path = None
    with pytest.raises(DataError, match="give overlay"):
        prediction.overlay()
    other = prediction.overlay(Image.new("RGB", (128, 96)))
    assert other.size == (128, 96)


def test_a_notebook_shows_it_and_texts_stay_texts(prediction: Prediction) -> None:
    page = prediction._repr_html_()
    assert page.count("<img") == 1
    assert 'src="data:image/webp;base64,' in page
    assert "&lt;img src=x" in page
    assert "score 0.75, anomalous (random weights)" in page
    prediction.path = None
    assert "<img" not in prediction._repr_html_()
    assert "gone" in failed(EVIL, "gone")._repr_html_()
    assert EVIL not in failed(EVIL, "gone")._repr_html_()


def test_it_draws_itself_with_matplotlib(prediction: Prediction) -> None:
    pytest.importorskip("matplotlib")
    figure = prediction.plot()
    assert figure.axes[0].get_title() == "score 0.75, anomalous"
    assert len(figure.axes[0].get_images()) == 1


def test_it_prints_as_one_line_without_its_map(prediction: Prediction) -> None:
    prediction.path = "a.png"
    assert repr(prediction) == "<Prediction a.png: score 0.75, anomalous>"
    assert repr(failed("a\nb.png", "gone")) == "<Prediction a\\nb.png: gone>"
