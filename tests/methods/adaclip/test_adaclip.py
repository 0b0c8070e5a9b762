"""AdaCLIP: prompts by hand, fusion by hand, gradients, official files."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import PARITY
from tests.methods.small import BOTTLE, NUT, context, encode
from zsad import maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError, WeightsError
from zsad.method import new_method
from zsad.methods.adaclip.fusion import semantics
from zsad.methods.adaclip.method import CLS, ENTRY, AdaCLIP
from zsad.types import Scored, Tap, TrainBatch


def make(backbone: Backbone, **overrides: Any) -> AdaCLIP:
    config = registry.method("adaclip").resolve(("test", overrides))
    torch.manual_seed(0)
    return AdaCLIP(config, backbone.info)


@torch.no_grad()
def test_the_prompted_pass_by_hand(backbone: Backbone, images: torch.Tensor) -> None:
    """open_clip's own blocks with prompts behind the patches."""
    method = make(backbone, layers=[2, 4])
    found = encode(method, backbone, images[:2])
    assert method.feature_request().taps == {CLS, ENTRY}
    tokens = method.visual_contexts(found[CLS])
    last, states = method.prompted(found[ENTRY], tokens, context(method, backbone, BOTTLE, NUT))
    blocks = backbone.model.visual.transformer.resblocks
    x, kept = found[ENTRY], []
    n = x.shape[1]
    for layer, block in enumerate(blocks, 1):
        if layer <= 4:  # one set for each of the first four blocks
            x = torch.cat([x[:, :n], tokens[layer - 1]], 1)
        x = block(x)
        if layer in (2, 4):
            kept.append(x[:, 1:n])
    torch.testing.assert_close(last, x[:, :n], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states, kept, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_kinds_of_prompts(backbone: Backbone, images: torch.Tensor) -> None:
    cls = encode(make(backbone), backbone, images[:2])[CLS]
    static, dynamic, both = (
        make(backbone, prompts={"type": kind}).visual_contexts(cls) for kind in ("S", "D", "SD")
    )
    assert torch.equal(static[0][0], static[0][1])
    assert torch.equal(dynamic[0], dynamic[3])
    torch.testing.assert_close(both[2], static[2] + dynamic[2])
    half = make(backbone, prompts={"half": True}).visual_contexts(cls)
    assert torch.equal(half[1], both[1].half().float())


@torch.no_grad()
def test_without_prompts_the_shared_pass_is_read(backbone: Backbone, images: torch.Tensor) -> None:
    method = make(backbone, prompts={"branch": "L"}, layers=[3])
    assert method.feature_request().taps == {CLS, Tap("tokens", 3)}
    found, ctx = encode(method, backbone, images[:1]), context(method, backbone, BOTTLE)
    before = backbone.counters.resumed
    seen = method.seen(found, ctx)
    assert backbone.counters.resumed == before
    wanted = F.normalize(method.cls_token_layer.head[0](found[CLS]), dim=-1)
    torch.testing.assert_close(seen.image, wanted)
    assert ctx.text["bottle"].units is None  # every image has texts of its own
    for branch in ("V", "none"):
        plain = make(backbone, prompts={"branch": branch})
        units = context(plain, backbone, BOTTLE).text["bottle"].units
        assert units is not None
        sentence = backbone.text_encoder().encode_texts(["a cropped photo of the damaged bottle."])
        torch.testing.assert_close(units[31], F.normalize(sentence[0], dim=-1))


def test_the_fusion_by_hand() -> None:
    """Two heaps among four anomalous patches: a heap of three counts as much as a single one."""
    a, b, c = torch.eye(3)
    patches = torch.stack([c, a, a, b, c, a, c])[None, None]  # one image, one layer
    probability = torch.tensor([[0.1, 0.9, 0.8, 0.7, 0.1, 0.6, 0.0]])
    found = semantics(patches, probability, clusters=2, seed=0, order="probability")
    assert found.top[0, :4].tolist() == [1, 2, 3, 5]  # five for each cluster, all seven here
    assert len(found.top[0]) == 7
    few = semantics(patches[:, :, [1, 2, 3, 5]], probability[:, [1, 2, 3, 5]], 2, 0, "place")
    torch.testing.assert_close(few.feature[0], F.normalize(a + b, dim=0))


def test_permuting_and_cutting_a_batch(backbone: Backbone, images: torch.Tensor) -> None:
    method = make(backbone, hsf={"clusters": 3})
    found = encode(method, backbone, images[:3])
    categories, order = [BOTTLE, NUT, BOTTLE], [2, 0, 1]
    with torch.no_grad():
        whole = method.score(found, context(method, backbone, *categories))
        mixed = method.score(
            found.select(order), context(method, backbone, *(categories[i] for i in order))
        )
        one = method.score(found.select([1]), context(method, backbone, NUT))
    torch.testing.assert_close(mixed.image, whole.image[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed.maps[0], whole.maps[0][order], atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(one.image[0], whole.image[1], atol=1e-4, rtol=1e-4)


def test_the_explanation_ranks_the_image_s_own_texts(
    backbone: Backbone, images: torch.Tensor
) -> None:
    method = make(backbone)
    found, ctx = encode(method, backbone, images[:2]), context(method, backbone, BOTTLE, NUT)
    with torch.no_grad():
        scores = method.score(found, ctx)
        built = maps.build_maps(scores, method.map_spec(), 48)
        first, second = method.explain(Scored(found, ctx, scores, built, scores.image), k=12)
    cosines = scores.parts["states"][1] @ scores.parts["image"][1]
    assert [r.similarity for r in second] == pytest.approx(sorted(cosines.tolist(), reverse=True))
    assert {r.label for r in first} == {"normal", "anomalous"}
    assert any(r.text == "damaged metal nut" for r in second)
    rows, columns = found.grid
    top, left = divmod(int(scores.parts["peak"][0]), columns)
    wanted = (left / columns, top / rows, (left + 1) / columns, (top + 1) / rows)
    assert first[0].region == pytest.approx(wanted)


@pytest.mark.parametrize("dice", ["image", "row"])
def test_training_lowers_the_loss_through_both_towers(
    backbone: Backbone, images: torch.Tensor, recipe: ModuleType, dice: str
) -> None:
    method = make(backbone, loss={"dice": dice}, hsf={"clusters": 3})
    found = encode(method, backbone, images[:2])
    batch = TrainBatch(recipe.masks([1, 0], 48, 5), torch.tensor([1, 0]))
    ctx = replace(context(method, backbone, BOTTLE, NUT), text={})
    method.begin_training([BOTTLE, NUT], {}, backbone.text_encoder())
    (phase,) = method.phases()
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for step in range(6):
        losses = method.losses(found, batch, ctx)
        optimizer.zero_grad()
        losses["total"].backward()
        if step == 0:
            silent = {n for n, p in method.named_parameters() if p.grad is None}
            # block 1 of the text sees the words, and this one has three blocks
            assert silent == {f"text_prompter.static_prompts.{i}" for i in (0, 3)}
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < values[0]
    assert all(p.grad is None for p in backbone.model.parameters())


def test_mosaics_are_for_mvtec(backbone: Backbone) -> None:
    method = make(backbone)
    assert method.config.train.mosaic.applies(["mvtec"])
    assert not method.adds_anew
    assert make(backbone, preset="released").adds_anew


def test_an_official_file_is_taken_whole(backbone: Backbone) -> None:
    """Depth and length are the file's; the key list is that of the released ones."""
    keys = json.loads((PARITY / "keys_adaclip.json").read_text(encoding="utf-8"))
    state = {k: torch.zeros(shape) for k, (shape, _) in keys.items()}
    size = {"width": 1024, "embed": 768, "text_width": 768, "depth": 24}
    info = replace(backbone.info, **size, stages=(6, 12, 18, 24))
    entry = registry.method("adaclip")
    imported = AdaCLIP.import_official(state, entry.resolve(), info)
    assert imported.config["prompts"] == {"depth": 4, "length": 5}
    built = new_method(entry, entry.resolve(("file", imported.config)), info, 0)
    built.load_state_dict(imported.state)
    assert built.config.preset == "released"
    assert sum(v.numel() for v in built.state_dict().values()) == 10_665_472
    less = {k: v for k, v in state.items() if "cls_token" not in k}
    with pytest.raises(WeightsError, match=r"missing: cls_token_layer\.head\.0\.weight"):
        AdaCLIP.import_official(less, entry.resolve(), info)
    few = entry.resolve(("test", {"layers": [6, 24]}))
    with pytest.raises(WeightsError, match=r"has 4 layers, name them in adaclip\.layers"):
        AdaCLIP.import_official(state, few, info)
    for wrong in ([1], {"clip_model.x": torch.zeros(1)}):
        with pytest.raises(WeightsError, match="not a released adaclip checkpoint"):
            AdaCLIP.import_official(wrong, entry.resolve(), info)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"hsf": {"alpha": 1.5}}, "hsf.alpha"),
        ({"hsf": {"clusters": 0}}, "hsf.clusters"),
        ({"hsf": {"seed": -1}}, "hsf.seed"),
        ({"prompts": {"length": 0}}, "prompts.length"),
        ({"post": {"sigma": -1}}, "post.sigma"),
        ({"scale": 0}, "scale"),
        ({"train": {"batch_size": 0}}, "batch_size"),
        ({"preset": "released", "prompts": {"type": "D"}}, "the released code fails there"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("adaclip").resolve(("test", overrides))
