"""KAnoCLIP as a whole on a small backbone with deterministic weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from zsad import backbones, maps, registry
from zsad.backbones import Backbone
from zsad.methods.kanoclip.method import KAnoCLIP
from zsad.types import (
    BuiltMaps,
    Category,
    ImageFeatures,
    Sample,
    ScoreContext,
    Scored,
    Scores,
    Tap,
    TrainBatch,
)

SIZE = 84
BOTTLE = Category("mvtec", "bottle", "bottle")
NUT = Category("mvtec", "metal_nut", "metal nut")


@pytest.fixture(scope="module")
def backbone(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    dims = recipe.ClipDims(embed=64, text_width=64, text_layers=3, vision_layers=12)
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(dict(recipe.clip_state(dims, 71)), path)
    return backbones.load("file", weights=str(path), image_size=SIZE)


def make(backbone: Backbone, **overrides: object) -> KAnoCLIP:
    config = registry.method("kanoclip").resolve(("test", overrides))
    torch.manual_seed(0)
    return KAnoCLIP(config, backbone.info)


def context(
    method: KAnoCLIP, backbone: Backbone, categories: list[Category], text: bool = True
) -> ScoreContext:
    encoder = backbone.text_encoder()
    prepared = {}
    if text:
        with torch.no_grad():
            prepared = method.prepare_text(list(dict.fromkeys(categories)), encoder)
    return ScoreContext(categories, prepared, text_encoder=encoder)


def features(method: KAnoCLIP, backbone: Backbone, recipe: ModuleType, count: int) -> ImageFeatures:
    request = method.feature_request()
    request = replace(request, variant=replace(request.variant, image_size=SIZE))
    return backbone.encode_image(recipe.images(count, SIZE, 5), request)


def test_batch_of_two_equals_two_batches_of_one(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone).eval()
    found = features(method, backbone, recipe, 2)
    with torch.no_grad():
        both = method.score(found, context(method, backbone, [BOTTLE, NUT]))
        for i, category in enumerate((BOTTLE, NUT)):
            one = method.score(found.select([i]), context(method, backbone, [category]))
            assert torch.allclose(both.image[i], one.image[0], atol=1e-5)
            for a, b in zip(both.maps, one.maps):
                assert torch.allclose(a[i], b[0], atol=1e-3)  # logits of scale 100


def test_stages_below_the_vv_path_are_the_common_stream(backbone: Backbone) -> None:
    method = make(backbone)
    start = backbone.info.vv_start(18)
    expected = ["tokens" if stage < start else "vv" for stage in backbone.info.stages]
    assert [tap.kind for tap in method.stage_taps] == expected
    assert "vv" in expected
    off = make(backbone, vv={"enabled": False})
    assert {tap.kind for tap in off.stage_taps} == {"tokens"}


def test_planted_patch_lights_up_where_it_is(backbone: Backbone) -> None:
    """With plain projected features, a patch that is the abnormal text must carry the maximum."""
    method = make(
        backbone, bicmci={"enabled": False}, conv_adapter="off", post={"sigma": 0.0}
    ).eval()
    ctx = context(method, backbone, [BOTTLE])
    pair = ctx.text["bottle"].pair
    height, width = backbone.info.grid(SIZE)
    tokens = pair[0].expand(1, 1 + height * width, -1).clone()
    row, column = 1, 4
    tokens[0, 1 + row * width + column] = pair[1]
    data = dict.fromkeys(method.stage_taps, tokens)
    data[Tap("cls")] = pair[1][None]
    with torch.no_grad():
        scores = method.score(ImageFeatures((height, width), data), ctx)
        built = maps.build_maps(scores, method.map_spec(), SIZE)
    y, x = divmod(int(built.final[0].argmax()), SIZE)
    cell = SIZE / height
    # align_corners maps patch centres onto a stretched grid: allow one patch around the centre
    assert abs(y - (row + 0.5) * cell) <= cell
    assert abs(x - (column + 0.5) * cell) <= cell
    assert scores.image.item() > 0.5
    assert method.image_score(scores, built).item() > 0.5


def test_loss_terms_add_up_and_stay_finite_at_the_ends(
    backbone: Backbone, recipe: ModuleType
) -> None:
    method = make(backbone)
    method.begin_training(
        [BOTTLE, NUT], {"bottle": ["the rim is chipped"]}, backbone.text_encoder()
    )
    assert set(method.knowledge) == {"bottle", "metal_nut"} or "bottle" in method.knowledge
    found = features(method, backbone, recipe, 2)
    batch = TrainBatch(recipe.masks([1, 0], SIZE, 5), torch.tensor([1, 0]))
    ctx = context(method, backbone, [BOTTLE, NUT], text=False)
    losses = method.losses(found, batch, ctx)
    total = losses["knowledge"] + losses["image"] + losses["local"]
    assert torch.allclose(losses["total"], total)
    losses["total"].backward()
    for name in ("context_tokens", "interaction.0.skip.weight", "conv_adapter.down.weight"):
        gradient = dict(method.named_parameters())[name].grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


def test_score_at_the_ends_keeps_the_image_loss_finite() -> None:
    for score, label in ((0.0, 1.0), (1.0, 0.0)):
        value = torch.tensor([score]).clamp(1e-6, 1 - 1e-6)
        assert torch.isfinite(F.binary_cross_entropy(value, torch.tensor([label])))


def test_a_few_steps_lower_the_loss(backbone: Backbone, recipe: ModuleType) -> None:
    method = make(backbone)
    method.begin_training([BOTTLE], {}, backbone.text_encoder())
    found = features(method, backbone, recipe, 4)
    batch = TrainBatch(recipe.masks([1, 0, 1, 1], SIZE, 5), torch.tensor([1, 0, 1, 1]))
    ctx = context(method, backbone, [BOTTLE] * 4, text=False)
    phase = method.phases()[0]
    optimizer = phase.optimizer(method.parameters_of_phase(phase))
    values = []
    for _ in range(15):
        losses = method.losses(found, batch, ctx)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        values.append(losses["total"].item())
    assert values[-1] < 0.9 * values[0]


def test_everything_off_is_fixed_prompts_without_training(
    backbone: Backbone, recipe: ModuleType
) -> None:
    method = make(
        backbone,
        knpl={"enabled": False},
        vv={"enabled": False},
        bicmci={"enabled": False},
        conv_adapter="off",
    )
    assert method.phases() == []
    encoder = backbone.text_encoder()
    expected = F.normalize(
        encoder.encode_texts(["a photo of a normal bottle", "a photo of an abnormal bottle"]),
        dim=-1,
    )
    assert torch.allclose(method.text_pairs(["bottle"], encoder)[0], expected, atol=1e-6)


def test_a_description_pasted_as_patch_ranks_first(backbone: Backbone) -> None:
    method = make(backbone, bicmci={"enabled": False}, conv_adapter="off").eval()
    ctx = context(method, backbone, [BOTTLE])
    state = ctx.text["bottle"]
    height, width = backbone.info.grid(SIZE)
    wanted = 2
    visual = torch.randn(1, height * width, backbone.info.embed) * 0.01
    visual[0, 7] = state.embeddings[wanted]
    logits = torch.zeros(1, 2, height, width)
    logits[0, 1].view(-1)[7] = 5.0
    scores = Scores([logits], torch.zeros(1), parts={"visual": visual})
    maps_ = BuiltMaps(torch.zeros(1, SIZE, SIZE), torch.zeros(1, SIZE, SIZE))
    found = ImageFeatures((height, width), {Tap("cls"): state.embeddings[:1]})
    best = method.explain(Scored(found, ctx, scores, maps_, scores.image), 3)[0][0]
    assert best.text == state.texts[wanted]
    assert best.similarity == pytest.approx(1.0, abs=1e-5)
    assert best.region == (
        7 % width / width,
        7 // width / height,
        (7 % width + 1) / width,
        (7 // width + 1) / height,
    )


def test_config_errors_name_the_key(tmp_path: Path) -> None:
    from zsad.errors import RequestError

    with pytest.raises(RequestError, match=r"kanoclip\.bicmci\.directons"):
        registry.method("kanoclip").resolve(("the command line", {"bicmci": {"directons": "both"}}))
    with pytest.raises(RequestError, match="must divide"):
        registry.method("kanoclip").resolve(("the command line", {"bicmci": {"width": 30}}))


def test_sample_type_is_not_needed() -> None:
    """Heads never see samples: the method's module must not import the loading room."""
    source = Path(__import__("zsad.methods.kanoclip.method", fromlist=["x"]).__file__).read_text()
    assert "zsad.data" not in source
    assert Sample.__name__ not in source
