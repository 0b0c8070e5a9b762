"""FAPrompt's parts do what the paper says, whatever their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.components.prompt_learning import unit
from zsad.config import BackboneSettings, DataSettings, RunSettings, Settings
from zsad.data import splits
from zsad.data.index import load_index
from zsad.errors import RequestError
from zsad.method import Method, new_method
from zsad.methods.faprompt.explain import nearest_descriptions
from zsad.methods.faprompt.method import prior_loss
from zsad.methods.faprompt.prompts import FirstPass, orthogonality
from zsad.prompt_bank.bank import bank
from zsad.training import FitOptions, fit
from zsad.types import (
    BackboneInfo,
    Category,
    ImageFeatures,
    PromptView,
    ScoreContext,
    Scored,
    TrainBatch,
)

OBJECT = Category("d", "object", "object")


def make(backbone: Backbone | BackboneInfo, **overrides: Any) -> Any:
    entry = registry.method("faprompt")
    info = backbone.info if isinstance(backbone, Backbone) else backbone
    return new_method(entry, entry.resolve(("test", overrides)), info, 0)


def context(method: Method, backbone: Backbone, count: int) -> ScoreContext:
    text = backbone.text_encoder()
    prepared = method.prepare_text([OBJECT], text)
    return ScoreContext([OBJECT] * count, prepared, text_encoder=text)


def encode(method: Method, backbone: Backbone, images: Tensor) -> ImageFeatures:
    return backbone.encode_image(images, method.feature_request())


@pytest.fixture
def batch() -> TrainBatch:
    masks = torch.zeros(8, 1, 48, 48)
    masks[4:, :, 10:30, 5:20] = 1
    return TrainBatch(masks, torch.tensor([0] * 4 + [1] * 4))


# ----------------------------------------------------------------------------- parameters
def large(backbone: Backbone) -> BackboneInfo:
    return replace(
        backbone.info, width=1024, embed=768, text_width=768, depth=24, stages=(6, 12, 18, 24)
    )


def test_used_parameters_are_those_of_the_paper(backbone: Backbone) -> None:
    method = make(large(backbone))
    count = {n: p.numel() for n, p in method.named_parameters()}
    assert sum(count.values()) == 4_100_064  # 9,612,256 minus eight unused Linear(768, 896)
    assert sum(v for n, v in count.items() if n.startswith("prior_net")) == 4_056_288
    assert count["prompts.normal_tokens"] == 3_840
    assert count["prompts.abnormal_tokens"] == 15_360
    assert method.patch_tap == ("vv_proj", 24, 6)


def test_presets(backbone: Backbone) -> None:
    entry = registry.method("faprompt")
    released = entry.resolve(("t", {"preset": "released"}))
    assert (released.topk, released.loss.image, released.deep_half) == (
        "released",
        "released",
        True,
    )
    assert released.pos_interp == "bilinear"
    assert released.score.max_weights == pytest.approx((2 / 3, 1 / 3))
    default = entry.resolve()
    assert (default.topk, default.score.max_weights) == ("paper", (0.5, 0.5))
    assert default.train.epochs == released.train.epochs == 7  # the epoch that is tested
    assert entry.resolve(("t", {"preset": "paper"})).cap.state_word == ""
    with pytest.raises(RequestError, match=r"faprompt\.dap\.topk.*did you mean 'top_k'"):
        entry.resolve(("the command line", {"dap": {"topk": 3}}))


# ---------------------------------------------------------------------------------- CAP
def test_orthogonality_of_orthonormal_and_of_equal_prompts() -> None:
    assert orthogonality(torch.eye(10)).item() == 0
    assert orthogonality(3 * torch.ones(10, 16)).item() == pytest.approx(45, abs=1e-4)
    assert orthogonality(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).item() == pytest.approx(1)


def test_a_gradient_step_lowers_the_orthogonality_loss(backbone: Backbone) -> None:
    method = make(backbone, cap={"n_prompts": 4})
    text = backbone.text_encoder()
    before = orthogonality(method.prompts.first_pass(text).prompts)
    before.backward()
    with torch.no_grad():
        tokens = method.prompts.abnormal_tokens
        tokens -= 0.05 * tokens.grad / tokens.grad.norm()
        after = orthogonality(method.prompts.first_pass(text).prompts)
    assert after < before


def test_abnormal_prompts_share_the_normal_tokens(backbone: Backbone) -> None:
    """Encoded in parts with a shared prefix, or written out prompt by prompt: the same."""
    method = make(backbone, cap={"n_prompts": 3})
    text, prompts = backbone.text_encoder(), method.prompts
    with torch.no_grad():
        first = prompts.first_pass(text)
        tokens = text.tokenize(["X X X X X X X damaged object."])
        embedded = text.embed_tokens(tokens).expand(3, -1, -1).clone()
        embedded[:, 1:6] = prompts.normal_tokens
        embedded[:, 6:8] = prompts.abnormal_tokens
        abnormal = text.encode_embeddings(embedded, tokens.eot.expand(3), prompts.deep_prompts())
        tokens = text.tokenize(["X X X X X object."])
        embedded = text.embed_tokens(tokens).clone()
        embedded[:, 1:6] = prompts.normal_tokens
        normal = text.encode_embeddings(embedded, tokens.eot, prompts.deep_prompts())
    torch.testing.assert_close(first.prompts, abnormal, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first.normal, F.normalize(normal[0], dim=0), atol=1e-6, rtol=1e-5)
    wanted = F.normalize(abnormal.mean(0), dim=0)  # the mean comes before the norm
    torch.testing.assert_close(first.abnormal, wanted, atol=1e-6, rtol=1e-5)


def test_without_cap_one_pair_of_its_own_tokens_is_left(backbone: Backbone) -> None:
    method = make(backbone, cap={"enabled": False, "base_len": 12})
    assert method.prompts.abnormal_tokens.shape == (1, 12, 64)
    text = backbone.text_encoder()
    with torch.no_grad():
        first = method.prompts.first_pass(text)
        assert orthogonality(first.prompts) == 0
        method.prompts.normal_tokens.add_(0.5)
        moved = method.prompts.first_pass(text)
    assert not torch.allclose(first.normal, moved.normal)
    assert torch.allclose(first.abnormal, moved.abnormal)  # nothing is shared


# ---------------------------------------------------------------------------------- DAP
def test_a_planted_abnormal_patch_is_selected_and_lights_up(backbone: Backbone) -> None:
    method = make(backbone, post={"sigma": 0})
    scene = context(method, backbone, 1)
    first = scene.text["object"]
    for place in (0, 17, 35):
        tokens = first.normal.expand(1, 37, -1).clone()
        tokens[0, 1 + place] = 5 * first.abnormal
        features = ImageFeatures(
            (6, 6), {method.patch_tap: tokens, method.image_tap: first.normal[None]}
        )
        with torch.no_grad():
            scores = method.score(features, scene)
            built = maps.build_maps(scores, method.map_spec(), 48).final[0]
        assert int(scores.parts["top_index"][0, 0]) == place
        row, column = divmod(int(built.argmax()), 48)
        assert (row // 8, column // 8) == divmod(place, 6)


def test_shuffled_patches_give_the_same_prior_unless_released(
    backbone: Backbone, images: Tensor
) -> None:
    order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
    for topk, same in (("paper", True), ("released", False)):
        method = make(backbone, topk=topk)
        scene = context(method, backbone, 8)
        features = encode(method, backbone, images)
        moved = ImageFeatures(features.grid, dict(features.data))
        rows = torch.cat([torch.zeros(1, dtype=torch.long), 1 + order])
        moved.data[method.patch_tap] = features[method.patch_tap][:, rows]
        with torch.no_grad():
            a, b = (method.score(f, scene).parts["prior"] for f in (features, moved))
        assert torch.allclose(a, b, atol=1e-5) is same


def test_a_zero_prior_network_makes_both_passes_equal(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone)
    for parameter in method.prior_net[2].parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        scores = method.score(encode(method, backbone, images), context(method, backbone, 8))
    torch.testing.assert_close(scores.maps[0], scores.maps[1], atol=1e-4, rtol=0)
    assert not scores.parts["prior"].any()


def test_prior_loss_counts_normal_images_only() -> None:
    prior = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]], requires_grad=True)
    assert prior_loss(prior, torch.tensor([1, 1, 1])).item() == 0
    loss = prior_loss(prior, torch.tensor([0, 1, 0]))
    assert loss.item() == pytest.approx((1 + 9) / 2 + 16 / 2)  # mean of entries, sum of images
    loss.backward()
    assert prior.grad is not None
    assert prior.grad[0].any()
    assert not prior.grad[1].any()


def test_top_k_beyond_the_patches_is_refused(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone, dap={"top_k": 40})
    features = encode(method, backbone, images)
    with pytest.raises(RequestError, match=r"faprompt\.dap\.top_k=40 exceeds the 36 patches"):
        method.score(features, context(method, backbone, 8))


# -------------------------------------------------------------------------------- batches
def test_permuted_and_single_images_score_as_in_the_batch(
    backbone: Backbone, images: Tensor
) -> None:
    method = make(backbone)
    scene = context(method, backbone, 8)
    order = [3, 0, 7, 1, 2, 6, 5, 4]
    with torch.no_grad():
        whole = method.score(encode(method, backbone, images), scene)
        moved = method.score(encode(method, backbone, images[order]), scene)
        for a, b in zip(whole.maps, moved.maps):
            torch.testing.assert_close(a[order], b, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole.image[order], moved.image, atol=1e-5, rtol=0)
        for i in range(8):
            one = method.score(encode(method, backbone, images[i : i + 1]), scene)
            torch.testing.assert_close(one.image[0], whole.image[i], atol=1e-5, rtol=0)
            for a, b in zip(one.maps, whole.maps):
                a, b = maps.pair_probability(a), maps.pair_probability(b[i : i + 1])
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_text_is_encoded_once_and_priors_in_one_call(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone)
    counters = backbone.counters
    start = counters.text_calls
    scene = context(method, backbone, 8)
    assert counters.text_calls - start == 1  # normal and abnormal prompts, one call
    features = encode(method, backbone, images)
    calls, tokens = counters.text_calls, counters.text_tokens
    with torch.no_grad():
        method.score(features, scene)
    assert counters.text_calls - calls == 1  # the whole batch
    # the shared prefix once, then six positions of each of 8 x 10 prompts
    assert counters.text_tokens - tokens == 6 + 8 * 10 * 6


def test_cached_first_pass_equals_a_recomputed_one(backbone: Backbone, images: Tensor) -> None:
    method = make(backbone)
    features = encode(method, backbone, images)
    with torch.no_grad():
        cached = method.score(features, context(method, backbone, 8))
        first = method.prompts.first_pass(backbone.text_encoder())
        fresh = method.run_passes(features, first, backbone.text_encoder())
    assert torch.equal(cached.maps[0], fresh.plain)
    assert torch.equal(cached.maps[1], fresh.adapted)


# -------------------------------------------------------------------------------- losses
def test_total_is_the_weighted_sum(backbone: Backbone, images: Tensor, batch: TrainBatch) -> None:
    method = make(backbone)
    losses = method.losses(encode(method, backbone, images), batch, context(method, backbone, 8))
    plain = sum(losses[f"{k}_plain"] for k in ("focal", "dice_abnormal", "dice_normal"))
    adapted = sum(losses[f"{k}_adapted"] for k in ("focal", "dice_abnormal", "dice_normal"))
    torch.testing.assert_close(losses["loss"], plain + 0.5 * adapted)
    total = losses["loss"] + losses["image_loss2"] + 0.1 * losses["loss_ab"] + losses["loss_bias"]
    torch.testing.assert_close(losses["total"], total)


def test_every_switch_of_the_ablation_trains(
    backbone: Backbone, images: Tensor, batch: TrainBatch
) -> None:
    rows: list[dict[str, Any]] = [
        {"cap": {"enabled": False}, "dap": {"enabled": False}},
        {"dap": {"enabled": False}},
        {"cap": {"orth_weight": 0.0}, "dap": {"enabled": False}},
        {"cap": {"enabled": False}},
        {"cap": {"enabled": False}, "dap": {"prior_weight": 0.0}},
        {"preset": "released"},
        {"preset": "paper"},
    ]
    for row in rows:
        method = make(backbone, **row)
        features = encode(method, backbone, images)
        losses = method.losses(features, batch, context(method, backbone, 8))
        losses["total"].backward()
        used = [n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()]
        unused = {n for n, _ in method.named_parameters()} - set(used)
        assert not {n for n in unused if "deep" not in n}, row
        with torch.no_grad():
            scores = method.score(features, context(method, backbone, 8))
        assert ((scores.image >= 0) & (scores.image <= 1)).all()


def test_training_pulls_normal_priors_to_zero_and_spreads_the_prompts(
    backbone: Backbone, images: Tensor, batch: TrainBatch
) -> None:
    method = make(backbone, cap={"n_prompts": 4})
    features, scene = encode(method, backbone, images), context(method, backbone, 8)
    phase = method.phases()[0]
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    with torch.no_grad():
        before = method.losses(features, batch, scene)
    for _ in range(60):
        optimizer.zero_grad()
        method.losses(features, batch, scene)["total"].backward()
        optimizer.step()
    with torch.no_grad():
        after = method.losses(features, batch, scene)
    assert after["loss_bias"] < 0.5 * before["loss_bias"]
    assert after["loss_ab"] < before["loss_ab"]
    assert after["loss"] < before["loss"]


def test_training_on_synthetic_lowers_the_orthogonality_loss(
    backbone: Backbone, tmp_path: Path
) -> None:
    index = load_index("synthetic")
    samples = [s for s in splits.auxiliary(index, "test", 4) if s.category in ("screw", "carpet")]
    settings = Settings(
        backbone=BackboneSettings(name="zsad-tiny"),
        data=DataSettings(workers=0),
        run=RunSettings(feature_cache_gb=0.05),
    )
    method = make(backbone, train={"epochs": 20, "batch_size": 2})
    options = FitOptions(logger="none")
    (result,) = fit(
        [method],
        index,
        backbone,
        settings=settings,
        seed=0,
        out_dir=tmp_path,
        samples=samples,
        options=options,
    )
    first, last = result.history[0], result.history[-1]
    assert last["loss_ab"] < 0.5 * first["loss_ab"]
    assert last["loss"] < first["loss"]


# --------------------------------------------------------------------------- explanation
def test_explanations_name_the_prompt_the_patch_and_the_nearest_description(
    backbone: Backbone,
) -> None:
    method = make(backbone, cap={"n_prompts": 3})
    text = backbone.text_encoder()
    bottle = Category("mvtec", "bottle", "bottle")
    scene = ScoreContext([bottle], method.prepare_text([bottle], text), text_encoder=text)
    first = scene.text["bottle"]
    tokens = first.normal.expand(1, 37, -1).clone()
    tokens[0, 1 + 8] = 4 * first.abnormal
    features = ImageFeatures(
        (6, 6), {method.patch_tap: tokens, method.image_tap: first.normal[None]}
    )
    with torch.no_grad():
        scores = method.score(features, scene)
        # let the second prompt be what the planted patch shows
        scores.parts["prompts"] = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(1))
        scores.parts["prompts"][0, 1] = first.abnormal
        built = maps.build_maps(scores, method.map_spec(), 48)
        (found,) = method.explain(Scored(features, scene, scores, built, scores.image), 2)
    *found, normal = found
    assert 1 <= len(found) <= 2
    entry = bank().find("filo", bottle)
    assert entry is not None
    assert found[0].text in entry.texts["anomaly_types"]
    assert "prompt 2 of 3" in found[0].note
    assert found[0].similarity == pytest.approx(1, abs=1e-4)
    assert found[0].region == pytest.approx((2 / 6, 1 / 6, 3 / 6, 2 / 6))
    assert found[0].source == "learned"
    assert "nearest description, not generated by the model" in found[0].note
    assert (normal.label, normal.region) == ("normal", None)


def test_a_prompt_lights_up_what_it_alone_describes(backbone: Backbone) -> None:
    """Planted patches, one for each prompt: prompts that differ give different maps, and of two
    that are equal the maps are, too.  One prompt's map is the method's own."""
    method = make(backbone, cap={"n_prompts": 3}, dap={"enabled": False}, post={"sigma": 0})
    axes = torch.eye(48)
    prompts = torch.stack([5 * axes[1], 2 * axes[2], axes[2]])  # the last two say the same
    first = FirstPass(axes[0], unit(prompts.mean(0)), prompts)
    tokens = axes[0].expand(1, 37, -1).clone()
    tokens[0, 1 + 8], tokens[0, 1 + 20] = axes[1], axes[2]
    features = ImageFeatures((6, 6), {method.patch_tap: tokens, method.image_tap: axes[:1]})

    def views(prompts: FirstPass) -> tuple[Scored, PromptView]:
        scene = ScoreContext([OBJECT], {"object": prompts}, text_encoder=backbone.text_encoder())
        scores = method.score(features, scene)
        built = maps.build_maps(scores, method.map_spec(), 6)
        scored = Scored(features, scene, scores, built, scores.image)
        return scored, method.prompt_views(scored)[0]

    with torch.no_grad():
        _, view = views(first)
        single, alone = views(FirstPass(first.normal, axes[1], prompts[:1]))
    assert view.maps is not None
    assert [int(m.argmax()) for m in view.maps] == [8, 20, 20]
    assert torch.equal(view.maps[1], view.maps[2])
    assert view.maps[0].flatten()[8] == pytest.approx(1, abs=1e-5)  # 1/0.07 apart
    assert view.abnormal.tolist() == [False, True, True, True]
    assert view.kept.all()
    torch.testing.assert_close(view.embeddings[1:], unit(prompts))
    assert alone.maps is not None
    torch.testing.assert_close(alone.maps[0], single.maps.final[0])


@pytest.mark.parametrize("common", [0.0, 1.0, 20.0])
def test_each_of_ten_planted_prompts_names_its_own_concept(common: float) -> None:
    """However much all prompts, and all descriptions, have in common: prompt i is description i."""
    draw = torch.Generator().manual_seed(3)
    concepts = torch.randn(10, 64, generator=draw)
    shared, other = torch.randn(2, 1, 64, generator=draw)
    prompts, embedded = unit(concepts + common * shared), unit(concepts + common * other)
    values, nearest = nearest_descriptions(prompts, embedded)
    assert nearest.tolist() == list(range(10))
    assert values.min() > 0.9


def test_prompts_nearest_to_one_description_are_one_reason(backbone: Backbone) -> None:
    method = make(backbone, cap={"n_prompts": 3})
    text = backbone.text_encoder()
    bottle = Category("mvtec", "bottle", "bottle")
    scene = ScoreContext([bottle], method.prepare_text([bottle], text), text_encoder=text)
    first = scene.text["bottle"]
    tokens = torch.randn(1, 37, 48, generator=torch.Generator().manual_seed(2))
    features = ImageFeatures(
        (6, 6), {method.patch_tap: tokens, method.image_tap: first.normal[None]}
    )
    with torch.no_grad():
        scores = method.score(features, scene)
        scores.parts["prompts"] = scores.parts["prompts"][:, :1].expand(-1, 3, -1).clone()
        scores.parts["prompts"][0, 2] *= -1  # two alike, and one that is not
        built = maps.build_maps(scores, method.map_spec(), 48)
        (found,) = method.explain(Scored(features, scene, scores, built, scores.image), 3)
    notes = [r.note for r in found if r.label == "prompt"]
    assert len(notes) == 2
    assert any("prompts 1 and 2 of 3" in note for note in notes)
