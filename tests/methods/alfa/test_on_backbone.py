"""ALFA, WinCLIP and CLIP on a real (small, random) CLIP: taps, identities, every option."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import zsad
from zsad.backbones import Backbone, load
from zsad.backbones.clip_vit import Entered, ImageEncoder
from zsad.types import FeatureRequest, Tap

SIZE, GRID, DEPTH = 32, (4, 4), 3


@pytest.fixture(scope="module")
def weights(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 3 + 2 blocks with CLIP's own vocabulary, in OpenAI's naming."""
    dims = recipe.ClipDims(
        vision_width=64,
        vision_layers=DEPTH,
        patch=8,
        grid=4,
        embed=48,
        text_width=64,
        text_layers=2,
    )
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(recipe.clip_state(dims, 7), path)
    return path


@pytest.fixture(scope="module")
def backbone(weights: Path) -> Backbone:
    return load("file", weights=weights)


@pytest.fixture(scope="module")
def images(recipe: ModuleType) -> torch.Tensor:
    return recipe.images(3, SIZE, 5)


def method(weights: Path, name: str = "alfa", **overrides: Any) -> Any:
    return zsad.load_method(
        name, backbone="file", weights=weights, device="cpu", overrides=overrides or None
    )


# --------------------------------------------------------------------------------- taps
def test_window_taps_of_one_size_share_their_pass(backbone: Backbone, images: torch.Tensor) -> None:
    taps = [Tap("window", 2), Tap("window_values", 2), Tap("window_values_block", 2)]
    before = backbone.counters.windows
    together = backbone.encode_image(images, FeatureRequest.of(*taps))
    assert backbone.counters.windows - before == 3 * 9
    for tap in taps:
        alone = backbone.encode_image(images, FeatureRequest.of(tap))
        torch.testing.assert_close(together[tap], alone[tap])


def test_windows_need_one_patch_embedding_and_few_calls(
    weights: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ALFA's 9 + 4 windows of three images: one convolution, one run per window size."""
    alfa = method(weights)
    shapes: list[torch.Size] = []
    calls: list[int] = []
    alfa.backbone.model.visual.conv1.register_forward_hook(
        lambda _, inputs, __: shapes.append(inputs[0].shape)
    )
    run = ImageEncoder.run
    monkeypatch.setattr(
        ImageEncoder,
        "run",
        lambda self, x, taps: (
            calls.append(len(x.x if isinstance(x, Entered) else x)),
            run(self, x, taps),
        )[1],
    )
    alfa.predict_tensor(images, "gadget")
    assert shapes == [images.shape]
    assert sorted(calls) == [3, 3 * 4, 3 * 9]


def test_value_taps_by_their_definition(backbone: Backbone, images: torch.Tensor) -> None:
    kinds = ("values", "values_norm", "values_proj", "values_block")
    taps = [Tap(kind, DEPTH) for kind in kinds]
    features = backbone.encode_image(images, FeatureRequest.of(*taps, Tap("tokens", DEPTH - 1)))
    visual: Any = backbone.model.visual
    block = visual.transformer.resblocks[-1]
    with torch.no_grad():
        joined = block.attn.out_proj(features[taps[0]])
        norm = visual.ln_post(joined)
        inner = features[Tap("tokens", DEPTH - 1)] + joined
        whole = visual.ln_post(inner + block.mlp(block.ln_2(inner))) @ visual.proj
        torch.testing.assert_close(features[taps[1]], norm, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features[taps[2]], norm @ visual.proj, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(features[taps[3]], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["values_proj", "values_norm", "values_block"])
def test_the_window_that_is_the_whole_image_has_the_images_values(
    backbone: Backbone, images: torch.Tensor, kind: str
) -> None:
    inside = Tap(kind.replace("values_proj", "values").replace("values", "window_values"), 4)
    taps = [Tap("cls"), Tap("window", 4), Tap(kind, DEPTH), inside]
    features = backbone.encode_image(images, FeatureRequest.of(*taps))
    torch.testing.assert_close(features[Tap("window", 4)][:, 0], features[Tap("cls")])
    torch.testing.assert_close(features[inside][:, 0], features[Tap(kind, DEPTH)])


# --------------------------------------------------------------------------- identities
@pytest.mark.parametrize(
    "aligner",
    [
        {},
        {"solver": "procrustes"},
        {"space": "width"},
        {"value_path": "full_block"},
        {"tokens": "window"},
    ],
)
def test_on_the_whole_image_as_window_the_aligner_is_the_identity(
    weights: Path, images: torch.Tensor, aligner: dict[str, Any]
) -> None:
    """With one window of 4x4 patches local equals global, so the map is the image score."""
    alfa = method(weights, scales=[4], aligner=aligner, score={"use_local": False})
    for prediction in alfa.predict_tensor(images, "gadget"):
        np.testing.assert_allclose(prediction.anomaly_map, prediction.image_score, atol=2e-5)


def test_every_component_changes_something(weights: Path, images: torch.Tensor) -> None:
    base = np.stack([p.anomaly_map for p in method(weights).predict_tensor(images, "gadget")])
    assert ((base > 0) & (base < 1)).all()
    for keys in (
        {"aligner": {"enabled": False}},
        {"aligner": {"solver": "procrustes"}},
        {"aligner": {"anchor": 0.0}},
        {"aligner": {"space": "width"}},
        {"aligner": {"value_path": "full_block"}},
        {"aligner": {"tokens": "cls"}},
        {"aligner": {"enabled": False}, "window_input": "zero_pixels"},
        {"context": {"enabled": False}},
        {"label_embedding": "sum_prompts"},
        {"scales": [2]},
        {"include_image_scale": True},
    ):
        found = method(weights, **keys).predict_tensor(images, "gadget")
        moved = np.stack([p.anomaly_map for p in found])
        assert np.abs(moved - base).max() > 1e-6, keys
        assert all(0 < p.image_score < 1 for p in found)


def test_equals_a_slow_alfa(weights: Path, backbone: Backbone, images: torch.Tensor) -> None:
    """The whole method once more, window by window and image by image, as the README says it."""
    alfa = method(weights, scales=[2])
    text = alfa.method.prepare_text(
        [zsad.types.Category("", "gadget", "gadget")], backbone.text_encoder()
    )["gadget"]
    taps = [Tap("cls"), Tap("values_proj", DEPTH), Tap("window", 2), Tap("window_values", 2)]
    features = backbone.encode_image(images, FeatureRequest.of(*taps))
    cls, u_global, window, u_local = (F.normalize(features[t], dim=-1) for t in taps)
    for b, prediction in enumerate(alfa.predict_tensor(images, "gadget", explanations=0)):
        d = text.embeddings @ cls[b]
        ends = [(d[text.labels == c].min(), d[text.labels == c].max()) for c in (0, 1)]
        pair = []
        for c in (0, 1):
            low, high = ends[1 - c]
            own = text.labels == c
            keep = own & ((d < low) | (d > high))
            pair.append(F.normalize(text.embeddings[keep if keep.any() else own].mean(0), dim=0))
        f_tg = torch.stack(pair)

        def probability(v: torch.Tensor, t: torch.Tensor) -> float:
            return float(F.softmax(t @ v / 0.07, dim=0)[1])

        s_global = probability(cls[b], f_tg)
        inverse = np.zeros(GRID)
        count = np.zeros(GRID)
        for row in range(3):
            for col in range(3):
                m = 3 * row + col
                rows = [0] + [1 + 4 * (row + y) + col + x for y in range(2) for x in range(2)]
                g, v = u_global[b, rows].double(), u_local[b, m].double()
                eye = torch.eye(g.shape[1], dtype=torch.float64)
                lam = 0.1 * (g @ g.T).trace() / 5
                a = torch.linalg.solve(g.T @ g + lam * eye, g.T @ v + lam * eye)
                f_tl = F.normalize(f_tg.double() @ a, dim=-1).float()
                inverse[row : row + 2, col : col + 2] += 1 / probability(window[b, m], f_tl)
                count[row : row + 2, col : col + 2] += 1
        local = count / inverse
        assert prediction.image_score == pytest.approx((s_global + local.max()) / 2, abs=1e-4)
        enlarged = F.interpolate(torch.tensor(local)[None, None], SIZE, mode="bilinear")[0, 0]
        np.testing.assert_allclose(prediction.anomaly_map, enlarged.numpy(), atol=1e-4)


# ----------------------------------------------------------------------------- all three
@pytest.mark.parametrize("name", ["clip", "winclip", "alfa"])
def test_one_forward_and_the_same_in_any_batch(
    weights: Path, images: torch.Tensor, name: str
) -> None:
    loaded = method(weights, name)
    together = loaded.predict_tensor(images, ["gadget", "cable", "gadget"])
    assert loaded.backbone.counters.image_forwards == 1
    for i, category in enumerate(["gadget", "cable", "gadget"]):
        (alone,) = loaded.predict_tensor(images[i : i + 1], category)
        assert alone.image_score == pytest.approx(together[i].image_score, abs=1e-5)
        np.testing.assert_allclose(alone.anomaly_map, together[i].anomaly_map, atol=1e-5)
        assert [e.text for e in alone.explanations] == [e.text for e in together[i].explanations]
        assert [e.rank for e in alone.explanations] == list(range(1, len(alone.explanations) + 1))


@pytest.mark.parametrize("preset", ["clip-ac", "clip-ac-ensemble"])
def test_clip_ac_is_another_detector(weights: Path, images: torch.Tensor, preset: str) -> None:
    loaded = zsad.load_method("clip", backbone="file", weights=weights, preset=preset, device="cpu")
    plain = method(weights, "clip").predict_tensor(images, "gadget")
    for a, b in zip(loaded.predict_tensor(images, "gadget"), plain):
        assert abs(a.image_score - b.image_score) > 1e-4


@pytest.mark.parametrize("name", ["winclip", "alfa"])
def test_a_reference_image_itself_is_half_as_anomalous(weights: Path, name: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    (zero,) = method(weights, name).predict([picture], "gadget")
    (few,) = method(weights, name, shots=1).predict([picture], "gadget", references=[picture])
    np.testing.assert_allclose(few.anomaly_map, zero.anomaly_map / 2, atol=1e-4)
