"""AdaptCLIP on a small backbone, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.components.templates import TEMPLATES
from zsad.errors import RequestError, WeightsError
from zsad.methods.adaptclip.method import AdaptCLIP
from zsad.methods.adaptclip.modules import Norm1d, PromptQuery
from zsad.methods.adaptclip.prompts import OWN_TEMPLATES, STATES
from zsad.training.schedules import partner
from zsad.types import BuiltMaps, Sample, Scores, TrainBatch


def make(backbone: Backbone, **overrides: Any) -> AdaptCLIP:
    config = registry.method("adaptclip").resolve(("small", {"mid": 8}), ("test", overrides))
    torch.manual_seed(0)
    return AdaptCLIP(config, backbone.info).eval()


def test_prompts_are_those_of_the_released_code() -> None:
    normal, anomalous = (len(states) * len(OWN_TEMPLATES) for states in STATES)
    assert (normal, anomalous) == (147, 84)
    assert len(set(OWN_TEMPLATES)) == 20
    assert set(OWN_TEMPLATES) < set(TEMPLATES)
    assert OWN_TEMPLATES.count("a jpeg corrupted photo of the {}.") == 2


@torch.no_grad()
def test_a_picture_compared_with_itself_has_no_distance(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone, shots=1)
    features = encode(method, backbone, images[:2])
    ctx = context(method, backbone, BOTTLE, NUT)
    ctx.references = {"bottle": features.select([0]), "metal_nut": features.select([0])}
    scores = method.score(features, ctx)
    assert len(scores.maps) == 3 + len(method.taps)
    assert scores.maps[2].shape[-1] == 4 * features.grid[1]
    for stage in scores.maps[3:]:
        assert stage[0].abs().max() < 1e-5
        assert stage[1].max() > 1e-3
    built = maps.build_maps(scores, method.map_spec(), 48)
    assert built.final[0].max() < 1e-4  # a harmonic mean with nothing
    assert method.image_score(scores, built)[0] < 1e-3
    alone = method.score(features.select([1]), ctx.select([1]))
    torch.testing.assert_close(alone.maps[2], scores.maps[2][1:], rtol=1e-4, atol=1e-5)


def test_fusions_by_hand(backbone: Backbone) -> None:
    images = torch.tensor([[0.2, 0.6]])
    built = BuiltMaps(torch.full((1, 2, 2), 0.4), torch.full((1, 2, 2), 0.4))
    scores = Scores([], images.mean(1), "values", {"images": images})
    assert make(backbone).image_score(scores, built).item() == pytest.approx(0.4)
    harmonic = make(backbone, fusion="harm")
    expected = 3 / (1 / 0.2 + 1 / 0.6 + 1 / 0.4)
    assert harmonic.image_score(scores, built).item() == pytest.approx(expected)
    scores.parts["images"] = torch.tensor([[0.2, 0.6, 0.7]])
    few = make(backbone, shots=1)
    assert few.image_score(scores, built).item() == pytest.approx(2 / (1 / 0.5 + 1 / 0.4))


def test_heads_are_shared_and_norms_are_not() -> None:
    query = PromptQuery(2, 4, 4)
    x = torch.randn(3, 4, 5, 5)
    local, whole = query(0, x)
    assert local.shape == (3, 2, 20, 20)
    assert whole.shape == (3, 2)
    counts = [int(norm.num_batches_tracked) for norm in query.sharebn]
    assert counts == [1, 0]
    query(1, x)
    assert int(query.local_adapter[1].num_batches_tracked) == 2


def test_a_batch_of_one_takes_the_running_statistics() -> None:
    norm = Norm1d(3).train()
    norm(torch.randn(8, 3) * 4 + 1)
    kept = norm.running_mean.clone()
    x = torch.randn(1, 3)
    found = norm(x)
    assert torch.equal(norm.running_mean, kept)
    torch.testing.assert_close(found, norm.eval()(x))


def test_training_compares_and_leaves_no_part_out(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone).train()
    features = encode(method, backbone, images[:3])
    ctx = context(method, backbone, BOTTLE, NUT, BOTTLE)
    ctx.paired = encode(method, backbone, images[3:6])
    batch = TrainBatch(torch.zeros(3, 1, 48, 48), torch.tensor([0, 1, 0]))
    found = method.losses(features, batch, ctx)
    parts = found["focal"] + found["dice_abnormal"] + found["dice_normal"]
    torch.testing.assert_close(found["local"], parts)
    torch.testing.assert_close(found["total"], found["local"] + found["global"])
    found["total"].backward()
    still = [n for n, p in method.named_parameters() if p.grad is None]
    assert still == []
    assert any("running_mean" in name for name in method.trained_state())


def test_partners_are_normal_others_and_change_with_the_epoch() -> None:
    normals = {"a": [Sample(f"{i}", 0, "a", uid=str(i)) for i in range(5)]}
    query = normals["a"][2]
    drawn = [partner(query, normals, 0, "adapters", epoch).uid for epoch in range(40)]
    assert set(drawn) == {"0", "1", "3", "4"}
    assert drawn == [partner(query, normals, 0, "adapters", e).uid for e in range(40)]
    with pytest.raises(RequestError, match="no normal image to compare"):
        partner(Sample("x", 1, "b", uid="x"), normals, 0, "adapters", 0)


@torch.no_grad()
def test_states_are_ranked(backbone: Backbone, images: Tensor) -> None:
    from zsad.types import Scored

    method = make(backbone)
    features = encode(method, backbone, images[:1])
    ctx = context(method, backbone, BOTTLE)
    scores = method.score(features, ctx)
    built = maps.build_maps(scores, method.map_spec(), 48)
    (reasons,) = method.explain(Scored(features, ctx, scores, built, scores.image), 2)
    assert sorted(r.label for r in reasons) == ["anomalous"] * 2 + ["normal"] * 2


def test_files_of_others_are_refused(backbone: Backbone) -> None:
    config = registry.method("adaptclip").resolve()
    with pytest.raises(WeightsError, match="not a released adaptclip checkpoint"):
        AdaptCLIP.import_official({"MyModel": {}}, config, backbone.info)


def test_what_a_checkpoint_holds_is_floating(backbone: Backbone) -> None:
    """Files of weights with whole numbers are refused when they are read."""
    state = make(backbone).trained_state()
    assert all(value.is_floating_point() for value in state.values())
    assert "query.sharebn.0.num_batches_tracked" in state
