"""Losses: golden values of the released code, hand cases, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from zsad.components import losses

# float32 means of up to 1,200 terms, on any CPU
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def released(recipe, golden):
    """Inputs and values of the released losses."""
    arrays, spec = golden("metrics_a")
    seed = spec["seed"]
    p = recipe.blob_maps(3, 20, seed + 7)[:, 0]
    truth = torch.from_numpy(recipe.metric_masks("multi", 3, 20, seed + 7)).float()
    score = recipe.rand("loss.score", (5,), seed)
    values = dict(zip(arrays["loss_names"].tolist(), arrays["loss_values"].tolist()))
    return p, truth, score, values


def test_all_released_losses_match(released):
    p, truth, score, values = released
    labels = torch.tensor([0, 1, 1, 0, 1])
    ours = {
        "focal": losses.focal(torch.stack([1 - p, p], 1), truth[:, None]),
        "dice_abnormal": losses.dice(p, truth),
        "dice_normal": losses.dice(1 - p, 1 - truth),
        "binary_focal_on_logits": losses.binary_focal_on_logits(score, labels),
        "dice_one_image_squeezed": losses.dice(p[:1], truth[:1], per_row=True),
    }
    assert set(ours) == set(values)
    for name, value in ours.items():
        assert value.item() == pytest.approx(values[name], abs=TOLERANCE), name


def test_segmentation_is_the_sum_of_its_three_terms(released):
    p, truth, _, values = released
    expected = values["focal"] + values["dice_abnormal"] + values["dice_normal"]
    assert losses.segmentation(p, truth).item() == pytest.approx(expected, abs=3 * TOLERANCE)


def test_one_channel_is_enough_for_a_pair(released):
    p, truth, _, values = released
    assert losses.focal(p, truth).item() == pytest.approx(values["focal"], abs=TOLERANCE)
    assert torch.equal(losses.focal(p, truth), losses.focal(torch.stack([1 - p, p], 1), truth))


def test_dice_by_hand():
    p = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    truth = torch.tensor([[[1, 1], [0, 0]]])
    assert losses.dice(p, truth).item() == pytest.approx(1 - 4 / 4.5)
    assert losses.dice(p, truth, squared=True).item() == pytest.approx(1 - 4 / 4.25)
    assert losses.dice(p, truth, per_row=True).item() == pytest.approx(((1 - 4 / 4.5) + 0) / 2)


def test_binary_focal_by_hand():
    score, label = torch.tensor([0.8]), torch.tensor([1])
    assert losses.binary_focal(score, label).item() == pytest.approx(0.2**2 * -math.log(0.8))
    logit = torch.logit(score)
    assert losses.binary_focal_on_logits(logit, label).item() == pytest.approx(
        losses.binary_focal(score, label).item(), rel=1e-5
    )


def test_losses_stay_finite_at_certain_predictions():
    """p = 0 and 1 on both labels: values and gradients are finite."""
    p = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]], requires_grad=True)
    truth = torch.tensor([[[0, 0], [1, 1]]])
    total = losses.segmentation(p, truth)
    (gradient,) = torch.autograd.grad(total, p)
    assert torch.isfinite(total)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(losses.binary_focal(torch.tensor([0.0, 1.0]), torch.tensor([1, 0])))


def test_gradient_pulls_towards_the_mask():
    p = torch.full((1, 4, 4), 0.5, requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    (gradient,) = torch.autograd.grad(losses.segmentation(p, mask), p)
    assert (gradient[0, :, :2] < 0).all()
    assert (gradient[0, :, 2:] > 0).all()


def test_mean_over_images_equals_the_batch(released):
    """Focal and per-image Dice of a batch are the means over its images."""
    p, truth, _, _ = released
    for loss in (losses.dice, losses.segmentation):
        single = torch.stack([loss(p[i : i + 1], truth[i : i + 1]) for i in range(3)]).mean()
        assert loss(p, truth).item() == pytest.approx(single.item(), abs=TOLERANCE)
