"""AA-CLIP: both adapted towers by hand, scores, stretching, training, files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import PARITY
from tests.methods.small import BOTTLE, NUT, context
from zsad import checkpoints, maps, registry
from zsad.backbones import Backbone
from zsad.errors import RequestError, WeightsError
from zsad.method import feature_request, new_method
from zsad.methods.aaclip.augmentation import SHIFT, TURN, changes
from zsad.methods.aaclip.method import AACLIP, CLS, ENTRY, pair_of
from zsad.types import ImageFeatures, Sample, Scored, Tap, TrainBatch

SCAN = replace(NUT, domain="medical")


def make(backbone: Backbone, **overrides: Any) -> AACLIP:
    config = registry.method("aaclip").resolve(("test", overrides))
    torch.manual_seed(0)
    return AACLIP(config, backbone.info)


def encode(method: AACLIP, backbone: Backbone, images: torch.Tensor) -> ImageFeatures:
    return backbone.encode_image(images, feature_request(method, 0, training=True))


def by_hand(adapter: torch.nn.Module, x: torch.Tensor, share: float) -> torch.Tensor:
    own = F.leaky_relu(adapter.fc[0](x))
    return (
        share * own * x.norm(dim=-1, keepdim=True) / own.norm(dim=-1, keepdim=True)
        + (1 - share) * x
    )


@torch.no_grad()
def test_the_adapted_image_tower_by_hand(backbone: Backbone, images: torch.Tensor) -> None:
    """open_clip's own blocks with the adapters behind the first two, on every token."""
    method = make(backbone, layers=[1, 3], image_until=2, image_weight=0.3)
    found = encode(method, backbone, images[:2])
    stream = method.adapted(found, context(method, backbone, BOTTLE, NUT))
    x, kept, own = found[ENTRY], [], method.image_adapter
    for layer, block in enumerate(backbone.model.visual.transformer.resblocks[:3], 1):
        x = block(x)
        if layer <= 2:
            x = by_hand(own.layer_adapters[layer - 1], x, 0.3)
        if layer in (1, 3):
            kept.append(backbone.model.visual.ln_post(x[:, 1:]))
    for patches, state, project in zip(stream.patches, kept, own.seg_proj):
        wanted = F.normalize(project.fc(state), dim=-1)
        torch.testing.assert_close(patches, wanted, atol=1e-4, rtol=1e-4)
    mean = F.normalize(own.det_proj.fc(kept[-1]), dim=-1).mean(1)
    torch.testing.assert_close(stream.image, mean, atol=1e-4, rtol=1e-4)
    assert (stream.image.norm(dim=-1) < 1).all()


@torch.no_grad()
def test_the_adapted_text_tower_by_hand(backbone: Backbone) -> None:
    method, text = make(backbone, text_until=1, text_weight=0.4), backbone.text_encoder()
    found = method.sentences(BOTTLE, text)
    assert len(found) == 16
    tokens = text.tokenize(["a damaged bottle."])
    model = backbone.model
    x = model.token_embedding(tokens.ids) + model.positional_embedding
    mask = torch.full((77, 77), float("-inf")).triu(1)
    for layer, block in enumerate(model.transformer.resblocks):
        x = block(x, attn_mask=mask)
        x = by_hand(method.text_adapter[0], x, 0.4) if layer == 0 else x
    end = model.ln_final(x)[0, tokens.ends[0]]
    wanted = F.leaky_relu(method.text_adapter[1].fc[0](end))
    torch.testing.assert_close(found[6], F.normalize(wanted, dim=-1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_scores_by_hand(backbone: Backbone, images: torch.Tensor) -> None:
    """Medical categories are blurred more; a batch of both gives what each gives alone."""
    method = make(backbone)
    found, ctx = encode(method, backbone, images[:2]), context(method, backbone, BOTTLE, SCAN)
    scores = method.score(found, ctx)
    stream = method.adapted(found, ctx)
    for row, (category, sigma) in enumerate(((BOTTLE, 1.0), (SCAN, 1.5))):
        pair = ctx.text[category.key].pair
        apart = sum(100 * stage[row] @ (pair[1] - pair[0]) for stage in stream.patches) / 4
        wanted = maps.grid_blur(apart.unflatten(0, found.grid)[None], 2 * int(3 * sigma) + 1, sigma)
        torch.testing.assert_close(scores.maps[0][row, 1], wanted[0], atol=1e-3, rtol=1e-3)
        value = (1 + stream.image[row] @ pair[1]) / 2
        torch.testing.assert_close(scores.image[row], value, atol=1e-5, rtol=1e-5)
    built = maps.build_maps(scores, method.map_spec(), 48)
    assert 0 <= built.final.min() <= built.final.max() <= 1
    mixed = (built.final.amax((1, 2)) + scores.image) / 2
    torch.testing.assert_close(method.image_score(scores, built), mixed)
    plain = make(backbone, post={"sigma": 0}).score(found, ctx).maps[0]
    assert not torch.allclose(plain, scores.maps[0], atol=1e-2)


def test_inference_reads_the_embedded_patches_alone(backbone: Backbone) -> None:
    method = make(backbone)
    assert method.feature_request().taps == {ENTRY}
    start = method.v_start
    early = {Tap("tokens", n) for n in method.layers if n < start}
    assert method.training_request().taps == {ENTRY, CLS, Tap("tokens", start - 1)} | early
    last = make(backbone, stage1={"layers": "last"}).training_request()
    assert last.taps == {ENTRY, CLS, Tap("tokens", start - 1)}


def test_stretching_over_a_category(backbone: Backbone) -> None:
    method = make(backbone, preset="released")
    assert method.transductive
    assert not make(backbone).transductive
    info = {
        "map_smallest": torch.tensor([1.0, 2.0, 1.5]),
        "map_largest": torch.tensor([3.0, 5.0, 4.0]),
        "medical": torch.zeros(3),
    }
    values = torch.tensor([0.2, 0.4, 0.6])
    found = method.over_category(values, info)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.75, 0.875]))
    info["medical"] = torch.ones(3)
    torch.testing.assert_close(method.over_category(values, info), torch.tensor([0.5, 1.0, 0.75]))


def test_the_explanation_speaks_of_the_most_anomalous_patch(
    backbone: Backbone, images: torch.Tensor
) -> None:
    method = make(backbone)
    found, ctx = encode(method, backbone, images[:2]), context(method, backbone, BOTTLE, NUT)
    with torch.no_grad():
        scores = method.score(found, ctx)
        built = maps.build_maps(scores, method.map_spec(), 48)
        reasons = method.explain(Scored(found, ctx, scores, built, scores.image), k=8)[1]
    text = ctx.text["metal_nut"]
    cosines = (text.embeddings @ scores.parts["units"][1]).tolist()
    assert [r.similarity for r in reasons] == pytest.approx(sorted(cosines, reverse=True))
    assert {r.text for r in reasons} == set(text.phrases)
    rows, columns = found.grid
    top, left = divmod(int(scores.parts["peak"][1]), columns)
    wanted = (left / columns, top / rows, (left + 1) / columns, (top + 1) / rows)
    assert reasons[0].region == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("phase", "attention"), [("text", "tokens"), ("text", "batch"), ("image", "tokens")]
)
def test_a_phase_trains_its_own_adapters(
    backbone: Backbone, images: torch.Tensor, recipe: ModuleType, phase: str, attention: str
) -> None:
    method = make(backbone, stage1={"attention": attention, "lr": 1e-3})
    found = encode(method, backbone, images[:4])
    batch = TrainBatch(recipe.masks([1, 0, 1, 0], 48, 5), torch.tensor([1, 0, 1, 0]))
    ctx = replace(context(method, backbone, BOTTLE, NUT, BOTTLE, NUT), text={})
    method.begin_training([BOTTLE, NUT], {}, backbone.text_encoder())
    method.phase = phase
    chosen = method.current_phase()
    named = method.parameters_of_phase(chosen)
    method.freeze_all_but(named)
    optimizer = chosen.optimizer(named)
    values = []
    for _ in range(6):
        losses = method.losses(found, batch, ctx)
        optimizer.zero_grad()
        losses["total"].backward()
        assert all(p.grad is not None for p in named.values())
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < values[0]
    assert all(p.grad is None for n, p in method.named_parameters() if n not in named)
    assert all(p.grad is None for p in backbone.model.parameters())


def test_values_along_the_batch_depend_on_the_batch(
    backbone: Backbone, images: torch.Tensor
) -> None:
    ctx = context(make(backbone), backbone, BOTTLE, NUT)
    for attention, same in (("tokens", True), ("batch", False)):
        method = make(backbone, stage1={"attention": attention})
        found = encode(method, backbone, images[:2])
        both, alone = method.surgery(found, ctx)[-1][:1], method.surgery(found.select([0]), ctx)[-1]
        assert torch.allclose(both, alone, atol=1e-4) is same


def test_rates_are_halved_by_steps(backbone: Backbone) -> None:
    phase = make(backbone, stage2={"halve": [3, 5]}).phases()[1]
    assert phase.step_rate is not None
    assert [phase.step_rate(s, 2) for s in (0, 2, 3, 4, 5, 9)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_augmented_pictures_are_new_in_every_epoch(backbone: Backbone) -> None:
    method = make(backbone, train={"augment": True})
    assert method.adds_anew
    samples = [Sample(f"{i}.png", i % 2, "bottle", uid=str(i)) for i in range(6)]
    phases = method.phases()
    first, second = (method.epoch_samples(samples, phases[1], epoch, 0) for epoch in (0, 1))
    assert first is not None
    assert second is not None
    assert {s.uid for s in first}.isdisjoint({s.uid for s in second})
    assert first == method.epoch_samples(samples, phases[1], 0, 0)
    assert make(backbone).epoch_samples(samples, phases[1], 0, 0) is None
    drawn = [changes(backbone.info, toned=False)(random.Random(i)) for i in range(200)]
    assert max(abs(c.turn) for c in drawn) <= TURN
    assert max(abs(x) for c in drawn for x in c.shift) <= SHIFT
    assert {c.flips for c in drawn} == {(a, b) for a in (True, False) for b in (True, False)}
    assert {(c.brightness, c.contrast, c.saturation) for c in drawn} == {(1.0, 1.0, 1.0)}


# ------------------------------------------------------------------------------- files
def written(folder: Path, *epochs: str) -> dict[str, Any]:
    """A folder as the training writes it, for the sizes of ViT-L/14."""
    keys = json.loads((PARITY / "keys_aaclip.json").read_text(encoding="utf-8"))
    parts = {
        name: {k: torch.randn(shape) for k, (shape, _) in own.items()} for name, own in keys.items()
    }
    folder.mkdir()
    text = {"epoch": 5, "text_adapter": parts["text_adapter"], "text_optimizer": {}}
    torch.save(text, folder / "text_adapter.pth")
    for epoch in epochs:
        image = {"epoch": 20, "image_adapter": parts["image_adapter"], "image_optimizer": {}}
        torch.save(image, folder / f"image_adapter{epoch}.pth")
    return parts


def test_a_folder_of_its_training_is_imported(backbone: Backbone, tmp_path: Path) -> None:
    parts = written(tmp_path / "trained", "", "_19")
    size = {"width": 1024, "embed": 768, "text_width": 768, "depth": 24, "text_depth": 12}
    info = replace(backbone.info, **size, stages=(6, 12, 18, 24))
    entry, target = registry.method("aaclip"), tmp_path / "own.safetensors"
    report = checkpoints.import_file(entry, tmp_path / "trained", target, info)
    assert any("12,582,912" in line for line in report)
    loaded, _ = checkpoints.load_into(entry, target, info)
    assert loaded.config == entry.resolve(("preset", {"preset": "released"}))
    assert len(loaded.text_adapter) == 3 + 1
    assert len(loaded.image_adapter.layer_adapters) == 6
    state = loaded.state_dict()
    for part, own in parts.items():
        for key, value in own.items():
            assert torch.equal(state[f"{part}.{key}"], value)
    (tmp_path / "trained" / "text_adapter.pth").unlink()
    with pytest.raises(WeightsError, match="no dictionary 'text_adapter' in it"):
        checkpoints.load_into(entry, tmp_path / "trained" / "image_adapter.pth", info)


def test_which_epoch_of_several_is_asked(backbone: Backbone, tmp_path: Path) -> None:
    written(tmp_path / "trained", "_18", "_19")
    entry = registry.method("aaclip")
    with pytest.raises(RequestError, match=r"image_adapter_18\.pth.*name one file"):
        checkpoints.import_file(entry, tmp_path / "trained", tmp_path / "x", backbone.info)


def test_leaky_projections_are_told_by_their_keys(backbone: Backbone) -> None:
    donor = make(backbone, relu=True, text_until=2, image_until=1)
    state: dict[str, Any] = {"text_adapter": {}, "image_adapter": {}}
    for key, value in donor.state_dict().items():
        part, _, rest = key.partition(".")
        state[part][rest] = value
    entry = registry.method("aaclip")
    imported = AACLIP.import_official(state, entry.resolve(), backbone.info)
    assert imported.config["relu"] is True
    built = new_method(entry, entry.resolve(("file", imported.config)), backbone.info, 0)
    built.load_state_dict(imported.state)
    few = entry.resolve(("test", {"layers": [1, 2]}))
    with pytest.raises(WeightsError, match=r"has 4 stages, name them in aaclip\.layers"):
        AACLIP.import_official(state, few, backbone.info)
    lacking = {**state, "image_adapter": {}}
    with pytest.raises(WeightsError, match="missing: image_adapter"):
        AACLIP.import_official(lacking, entry.resolve(), backbone.info)


def test_the_anchors_by_hand() -> None:
    sentences = torch.eye(16)
    pair = pair_of(sentences)
    assert pair[0, :6].tolist() == pytest.approx([6**-0.5] * 6)
    assert pair[1, 6:].tolist() == pytest.approx([10**-0.5] * 10)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"text_weight": 1.2}, "text_weight"),
        ({"image_until": -1}, "image_until"),
        ({"post": {"sigma": -1}}, "post.sigma"),
        ({"scale": 0}, "scale"),
        ({"stage2": {"batch_size": 0}}, "stage2.batch_size"),
        ({"image": {"domain_rule": "released"}}, "goes with score.norm=category"),
    ],
)
def test_bad_config_names_the_key(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        registry.method("aaclip").resolve(("test", overrides))


def test_more_blocks_than_there_are_is_refused(backbone: Backbone) -> None:
    with pytest.raises(RequestError, match=r"aaclip\.image_until=9 does not fit"):
        make(backbone, image_until=9)
