"""evaluate(): what it accepts, what it refuses, and that it equals scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from zsad.errors import CellError, RequestError
from zsad.metrics import reference
from zsad.metrics.evaluate import evaluate
from zsad.metrics.spec import METRICS as SPECS

METRICS = [m.name for m in SPECS.values() if not m.stands_for]


@pytest.fixture
def data():
    random = np.random.default_rng(7)
    labels = np.array([0, 1, 0, 1, 1])
    masks = np.zeros((5, 16, 20), np.uint8)
    masks[1, 2:7, 3:9] = masks[3, 10:12, 10:19] = masks[4, 0, 0] = masks[4, 1, 1] = 1
    maps = random.normal(size=masks.shape) - 4 + masks
    return maps, masks, random.normal(size=5) + labels, labels


def test_against_scikit_learn_and_brute_force(data):
    maps, masks, scores, labels = data
    result = evaluate(*data, aupro_200=True)
    assert result["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert result["image_ap"] == pytest.approx(average_precision_score(labels, scores))
    assert result["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert result["pixel_ap"] == pytest.approx(expected)
    assert result["pixel_f1max"] == pytest.approx(reference.f1_max(maps.ravel(), masks.ravel()))
    assert result["pixel_aupro"] == pytest.approx(reference.aupro(maps, masks))
    assert result["pixel_aupro_200"] == pytest.approx(reference.aupro_200(maps, masks))
    assert result["pixel_ioumax"] == pytest.approx(reference.iou_max(maps, masks))
    assert set(result["undefined"]) == {"pixel_aupimo"}  # 640 normal pixels
    assert (result["n_normal"], result["n_anomalous"]) == (2, 3)


def test_fpr_limit(data):
    for limit in (0.05, 1.0):
        ours = evaluate(*data, fpr_limit=limit)["pixel_aupro"]
        assert ours == pytest.approx(reference.aupro(data[0], data[1], limit))


def test_binned_reports_bounds_that_hold(data):
    exact, binned = evaluate(*data), evaluate(*data, mode="binned")
    assert "bounds" not in exact
    for name, bound in binned["bounds"].items():
        assert abs(exact[name] - binned[name]) <= bound + 1e-9


def test_the_document_is_json(data):
    document = json.loads(json.dumps(evaluate(*data, mode="binned", aupro_200=True)))
    assert set(METRICS) | {"pixel_aupro_200"} < set(document)


@pytest.mark.parametrize("mode", ["exact", "binned"])
def test_kinds_of_arrays_are_equal(data, mode):
    maps, masks, scores, labels = data
    maps, scores = maps.astype(np.float32), scores.astype(np.float32)
    expected = evaluate(maps, masks, scores, labels, mode=mode)
    tensors = [torch.from_numpy(x) for x in (maps, masks, scores, labels)]
    assert evaluate(*tensors, mode=mode) == expected
    lists = list(maps), list(masks), scores.tolist(), labels.tolist()
    assert evaluate(*lists, mode=mode) == expected
    assert evaluate([*tensors[0]], [*tensors[1]], scores, labels, mode=mode) == expected
    assert evaluate(maps[:, None], masks[:, None] > 0, scores, labels > 0, mode=mode) == expected
    assert evaluate(maps, masks.astype(float), scores, labels.astype(float), mode=mode) == expected
    blank = [None if not label else mask for mask, label in zip(masks, labels)]
    assert evaluate(maps, blank, scores, labels, mode=mode) == expected
    turned = maps.swapaxes(1, 2).copy().swapaxes(1, 2)  # not contiguous
    assert evaluate(turned, masks, scores, labels, mode=mode) == expected


def test_float64_scores_that_float32_cannot_tell_apart():
    """The exact mode keeps the precision it is given."""
    maps = np.array([[[1.0, 1.0 + 1e-12]]])
    result = evaluate(maps, [[[0, 1]]], [0.5, 0.5 + 1e-13][:1], [1])
    assert result["pixel_auroc"] == 1.0
    scores = np.array([0.5, 0.5 + 1e-13])
    assert evaluate(None, None, scores, [0, 1])["image_auroc"] == 1.0


def test_integer_maps():
    maps = np.array([[[0, 255], [3, 7]]], np.uint8)
    result = evaluate(maps, [[[0, 1], [0, 0]]], [1], [1])
    assert result["pixel_auroc"] == 1.0


def test_without_masks_or_maps(data):
    maps, masks, scores, labels = data
    for result in (
        evaluate(maps, None, scores, labels),
        evaluate(maps, [None] * 5, scores, labels),
        evaluate(maps, [masks[0], None, None, masks[3], masks[4]], scores, labels),
    ):
        assert result["pixel_aupro"] is None
        assert "no mask" in result["undefined"]["pixel_aupro"]
        assert result["image_auroc"] is not None
    assert evaluate(None, None, scores, labels)["undefined"]["pixel_ap"].endswith("anomaly maps")


def test_all_normal(data):
    maps, masks, scores, _ = data
    result = evaluate(maps, np.zeros_like(masks), scores, np.zeros(5))
    assert {m: result[m] for m in METRICS} == dict.fromkeys(METRICS)
    assert set(result["undefined"]) == set(METRICS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(labels=[0, 1, 2, 0, 1]), "labels must hold 0 and 1 only; found 2"),
        (lambda d: d.update(labels=[0, 1]), r"image_scores \[5\] and labels \[2\]"),
        (lambda d: d.update(maps=d["maps"][:3]), r"maps \[3, 16, 20\] must have shape \[N, H, W\]"),
        (lambda d: d.update(maps=d["maps"][0]), "must have shape"),
        (lambda d: d.update(masks=d["masks"][:, :8]), "must have the shape of maps"),
        (lambda d: d.update(masks=d["masks"] * 255), "masks must hold 0 and 1 only; found 255"),
        (lambda d: d.update(masks=d["maps"]), "masks must hold 0 and 1 only"),
        (lambda d: d.update(masks=[None, *d["masks"][1:4]]), "masks has 4 entries for 5"),
        (lambda d: d.update(masks=[np.zeros((2, 2)), *d["masks"][1:]]), "shape of the maps"),
        (lambda d: d.update(maps=[np.zeros((2, 2)), np.zeros(3)]), "maps is not an array"),
        (lambda d: d.update(image_scores=["a"] * 5), "image_scores must hold numbers"),
        (lambda d: d.update(maps=d["maps"] * 1j), "maps must hold"),
        (lambda d: d.update(mode="fast"), "'binned' or 'exact'"),
        (lambda d: d.update(fpr_limit=1.5), "fpr_limit"),
    ],
)
def test_wrong_requests_are_one_line(data, change, message):
    arguments = dict(zip(("maps", "masks", "image_scores", "labels"), data))
    change(arguments)
    with pytest.raises(RequestError, match=message) as caught:
        evaluate(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["exact", "binned"])
def test_nan_fails(data, mode):
    maps, masks, scores, labels = data
    maps[0, 0, 0] = np.nan
    with pytest.raises(CellError, match="NaN"):
        evaluate(maps, masks, scores, labels, mode=mode)


def test_inputs_are_left_alone(data):
    copies = [x.copy() for x in data]
    for mode in ("exact", "binned"):
        evaluate(*data, mode=mode)
    for before, after in zip(copies, data):
        np.testing.assert_array_equal(before, after)


def test_normal_images_with_marked_pixels_are_named(data, caplog):
    maps, masks, scores, labels = data
    assert evaluate(*data)["notes"] == []
    (note,) = evaluate(maps, masks[[1, 0, 3, 2, 4]], scores, labels)["notes"]
    assert note.startswith("2 normal images have marked pixels in their masks (first: image 0, 30 ")
    assert note in caplog.text


def test_maps_of_several_sizes_are_named(data):
    _, _, scores, labels = data
    maps = [np.zeros((16, 20)), np.zeros((8, 8)), *[np.zeros((16, 20))] * 3]
    with pytest.raises(RequestError, match=r"maps is not an array of one shape: \[16, 20\] and"):
        evaluate(maps, None, scores, labels)
    with pytest.raises(RequestError, match="scale them to one size"):
        evaluate([torch.from_numpy(m) for m in maps], None, scores, labels)


def test_ignored_pixels() -> None:
    """Known answer: the only normal pixel above the defect is ignored."""
    maps = np.array([[[0.0, 0.9, 0.8, 0.1]], [[0.0, 0.2, 0.3, 0.1]]])
    masks = np.array([[[0, 0, 1, 0]], [[0, 0, 0, 0]]])
    ignored = [np.array([[0, 1, 0, 0]]), None]
    assert evaluate(maps, masks, [1.0, 0.0], [1, 0])["pixel_auroc"] == pytest.approx(6 / 7)
    found = evaluate(maps, masks, [1.0, 0.0], [1, 0], ignored=ignored)
    assert found["pixel_auroc"] == 1.0
    assert found["notes"] == []
    hidden = evaluate(maps, masks, [1.0, 0.0], [1, 0], ignored=[masks[0], None])
    assert hidden["pixel_auroc"] is None
    assert hidden["notes"] == [
        "of 1 anomalous images every marked pixel is ignored (first: image 0); they still count "
        "as anomalous at the image level"
    ]


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        ([np.ones((1, 4)), None], "ignored: nothing is left of image 0 to look at"),
        (np.zeros((2, 4, 1)), r"ignored \[2, 4, 1\] must have the shape of maps \[2, 1, 4\]"),
        ([np.zeros((1, 4))], "ignored has 1 entry for 2 image scores"),
        (np.full((2, 1, 4), 2), "ignored must hold 0 and 1 only; found 2"),
    ],
)
def test_ignored_pixels_that_do_not_fit(ignored: Any, message: str) -> None:
    maps = np.zeros((2, 1, 4))
    with pytest.raises(RequestError, match=message):
        evaluate(maps, None, [1.0, 0.0], [1, 0], ignored=ignored)
