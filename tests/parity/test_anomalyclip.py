"""AnomalyCLIP against numbers of the released implementation (snapshot 45ed4dd)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import zsad
from tests.parity.golden_metrics import assert_golden_metrics
from zsad import backbones, checkpoints, maps, registry
from zsad.types import Category, ScoreContext, TrainBatch

UNIT = {"rtol": 1e-4, "atol": 5e-6}
MAPS = {"rtol": 1e-4, "atol": 5e-5}
THEIR_NAMES = {
    "ctx_pos": "normal_tokens",
    "ctx_neg": "abnormal_tokens",
    **{f"compound_prompts_text.{i}": f"deep_prompts.sets.{i}" for i in range(8)},
}


class Case:
    """A golden file with the method, backbone and inputs that it describes."""

    def __init__(self, name: str, recipe: ModuleType, golden: Any, folder: Path) -> None:
        self.arrays, self.spec = golden(name)
        spec = self.spec
        dims = recipe.ClipDims(**spec["dims"])
        clip = recipe.clip_state(dims, spec["seed"])
        head = recipe.anomalyclip_learnables(
            dims,
            spec["seed"],
            depth=spec["depth"],
            deep_tokens=spec["t_n_ctx"],
            n_ctx=spec["n_ctx"],
        )
        found = recipe.fingerprint([*clip.values(), *head.values()])
        np.testing.assert_allclose(found, self.arrays["recipe_fingerprint"], rtol=1e-4)
        torch.save(clip, folder / "clip.pt")
        torch.save({"prompt_learner": dict(head)}, folder / "checkpoint.pth")
        self.checkpoint, self.weights = folder / "checkpoint.pth", folder / "clip.pt"
        self.backbone = backbones.load(
            "file", weights=folder / "clip.pt", image_size=spec["image_size"]
        )
        self.images = recipe.images(len(spec["labels"]), spec["image_size"], spec["seed"])
        self.masks = recipe.masks(spec["labels"], spec["image_size"], spec["seed"])
        self.labels = torch.tensor(spec["labels"])
        entry = registry.method("anomalyclip")
        layers = [("test", {"layers": spec["layers"]})]
        self.method, self.report = checkpoints.load_into(
            entry, self.checkpoint, self.backbone.info, layers
        )

    @torch.no_grad()
    def inputs(self) -> tuple[Any, ScoreContext]:
        category = Category("", "object", "object")
        text = self.backbone.text_encoder()
        prepared = self.method.prepare_text([category], text)
        context = ScoreContext([category] * len(self.images), prepared, text_encoder=text)
        return self.backbone.encode_image(self.images, self.method.feature_request()), context


@pytest.fixture(scope="module")
def infer(recipe: ModuleType, golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("anomalyclip_infer_a", recipe, golden, tmp_path_factory.mktemp("ac_infer"))


@pytest.fixture(scope="module")
def train(recipe: ModuleType, golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("anomalyclip_train_a", recipe, golden, tmp_path_factory.mktemp("ac_train"))


@torch.no_grad()
def test_features_text_maps_and_scores_equal_the_released_code(infer: Case) -> None:
    z, method, size = infer.arrays, infer.method, infer.spec["image_size"]
    assert method.config.preset == "released"
    features, context = infer.inputs()
    scores = method.score(features, context)
    image = torch.nn.functional.normalize(features[method.image_tap], dim=-1)
    np.testing.assert_allclose(image, z["image_feature"], **UNIT)
    np.testing.assert_allclose(context.text["object"], z["text"], **UNIT)
    layer_maps = torch.stack(
        [maps.upsample(maps.pair_probability(m), size, False) for m in scores.maps], dim=1
    )
    np.testing.assert_allclose(layer_maps[:, infer.spec["map_from"] :], z["layer_maps"], **MAPS)
    np.testing.assert_allclose(scores.image, z["text_prob"], **MAPS)
    built = maps.build_maps(scores, method.map_spec(), size)
    np.testing.assert_allclose(method.image_score(scores, built), z["image_score"], **MAPS)
    np.testing.assert_allclose(layer_maps.sum(1), z["map_raw"], **MAPS)
    np.testing.assert_allclose(built.final, z["map_smooth"], **MAPS)


def test_an_official_checkpoint_maps_the_last_layer_alone(infer: Case, tmp_path: Path) -> None:
    """As the authors' scripts do (``--features_list 24``); the four stages are an option."""
    entry, info = registry.method("anomalyclip"), infer.backbone.info
    method, report = checkpoints.load_into(entry, infer.checkpoint, info)
    assert [tap.layer for tap in method.patch_taps] == [24]
    assert any("compound_prompt_projections" in line for line in report)
    target = tmp_path / "imported.safetensors"
    checkpoints.import_file(entry, infer.checkpoint, target, info)
    imported, notes = checkpoints.load_into(entry, target, info)
    assert [tap.layer for tap in imported.patch_taps] == [24]
    assert notes == []
    four = [("the command line", {"layers": "all"})]
    checkpoints.import_file(entry, infer.checkpoint, target, info, four)  # as version 0.1.0 did
    _, (note,) = checkpoints.load_into(entry, target, info)
    assert note == (
        "it was imported with anomalyclip.layers=all, where the preset says last; to read it as "
        "the preset 'released' is today, import it again"
    )
    method, _ = checkpoints.load_into(entry, infer.checkpoint, info, four)
    assert [tap.layer for tap in method.patch_taps] == [6, 12, 18, 24]
    assert method.map_spec().fuse == "sum"
    paper = entry.resolve(("test", {"preset": "paper"}))
    assert paper.layers == "last"


def test_prompts_are_tokenised_as_released(infer: Case) -> None:
    text = infer.backbone.text_encoder()
    lead = 1 + infer.spec["n_ctx"]
    words = "X " * infer.spec["n_ctx"]
    tokens = text.tokenize([f"{words}object.", f"{words}damaged object."]).ids.numpy()
    assert (tokens[:1, lead:] == infer.arrays["tokens_normal"][:, lead:]).all()
    assert (tokens[1:, lead:] == infer.arrays["tokens_abnormal"][:, lead:]).all()


@torch.no_grad()
def test_metrics_of_the_maps(infer: Case) -> None:
    features, context = infer.inputs()
    scores = infer.method.score(features, context)
    built = maps.build_maps(scores, infer.method.map_spec(), infer.spec["image_size"])
    assert_golden_metrics(
        infer.arrays,
        built.final,
        infer.masks,
        infer.method.image_score(scores, built),
        infer.labels,
    )


def test_two_training_steps_equal_the_released_code(train: Case) -> None:
    z, method, size = train.arrays, train.method, train.spec["image_size"]
    features, context = train.inputs()
    batch = TrainBatch(train.masks, train.labels)
    named = dict(method.named_parameters())
    before = {k: v.detach().clone() for k, v in named.items()}
    optimizer = method.phases()[0].optimizer(named)
    assert optimizer.defaults["lr"] == train.spec["lr"]

    scores = method.score(features, context)
    similarity = torch.stack([maps.upsample(m.softmax(1), size, False) for m in scores.maps])
    np.testing.assert_allclose(similarity.detach(), z["similarity_maps"], **MAPS)
    logits = method.image_logits(features, context.text["object"]).detach()
    np.testing.assert_allclose(logits, z["text_probs"], rtol=1e-3, atol=1e-4)

    for step in range(train.spec["steps"]):
        close = {"rtol": 1e-3, "atol": 1e-5} if step == 0 else {"rtol": 2e-2, "atol": 1e-4}
        losses = method.losses(features, batch, context)
        sums = dict(zip(z["sum_names"].tolist(), z["sum_values"][step]))
        for name, value in sums.items():
            np.testing.assert_allclose(losses[name].item(), value, **close)
        np.testing.assert_allclose(losses["total"].item(), sum(sums.values()), **close)
        singles = dict.fromkeys(("focal", "dice_abnormal", "dice_normal"), 0.0)
        for i, value in enumerate(z["term_values"][step][1:]):
            singles[list(singles)[i % 3]] += float(value)
        np.testing.assert_allclose(losses["image_loss"].item(), z["term_values"][step][0], **close)
        for name, value in singles.items():
            np.testing.assert_allclose(losses[name].item(), value, **close)
        optimizer.zero_grad()
        losses["total"].backward()
        norms = [named[THEIR_NAMES[n]].grad.norm().item() for n in z["grad_names"].tolist()]
        steady = {"rtol": 1e-2, "atol": 1e-5} if step == 0 else close
        np.testing.assert_allclose(norms, z["grad_norms"][step], **steady)
        if step == 0:
            for name in ("ctx_pos", "ctx_neg"):
                ours = named[THEIR_NAMES[name]].grad.reshape(z[f"grad_{name}"].shape)
                difference = np.linalg.norm(ours.numpy() - z[f"grad_{name}"])
                assert difference < 1e-2 * np.linalg.norm(z[f"grad_{name}"])
        optimizer.step()
    names = [THEIR_NAMES[n] for n in z["grad_names"].tolist()]
    changes = [(named[n].detach() - before[n]).norm().item() for n in names]
    np.testing.assert_allclose(changes, z["param_change_norms"], rtol=2e-2, atol=1e-4)
    after = [named[n].norm().item() for n in names]
    np.testing.assert_allclose(after, z["param_norms_after"], rtol=2e-2, atol=1e-4)


def public(case: Case, *overrides: str) -> Any:
    return zsad.load_method(
        "anomalyclip",
        backbone="file",
        weights=case.weights,
        image_size=case.spec["image_size"],
        checkpoint=case.checkpoint,
        preset="released",
        device="cpu",
        overrides=list(overrides),
    )


def test_the_public_route_predicts_the_released_numbers(infer: Case) -> None:
    """The golden adds up four layers, its option default."""
    found = public(infer, f"anomalyclip.layers={infer.spec['layers']}")
    z, predictions = infer.arrays, found.predict_tensor(infer.images, "object")
    np.testing.assert_allclose([p.image_score for p in predictions], z["image_score"], **MAPS)
    np.testing.assert_allclose([p.anomaly_map for p in predictions], z["map_smooth"], **MAPS)


def test_the_public_route_maps_the_last_layer_as_the_released_scripts(infer: Case) -> None:
    z, found = infer.arrays, public(infer).predict_tensor(infer.images, "object")
    last = [gaussian_filter(layers[-1], sigma=4) for layers in z["layer_maps"]]
    np.testing.assert_allclose([p.anomaly_map for p in found], last, rtol=0, atol=1e-5)
    np.testing.assert_allclose([p.image_score for p in found], z["image_score"], **MAPS)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_pictures_are_decoded_as_released(infer: Case, mode: str, tmp_path: Path) -> None:
    """Resized as they are stored, then ``convert("RGB")``; from a path and from PIL alike."""
    values = np.random.default_rng(3).integers(0, 256, (60, 90, 4), dtype=np.uint8)
    picture = Image.fromarray(values if mode == "RGBA" else values[..., :3])
    picture = picture if mode == "RGBA" else picture.quantize(12)
    path, size = tmp_path / "a.png", infer.spec["image_size"]
    picture.save(path)
    theirs = Image.open(path).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
    info = infer.backbone.info
    tensor = (np.asarray(theirs, dtype=np.float32) / 255 - info.mean) / info.std
    loaded = public(infer)
    (want,) = loaded.predict_tensor(torch.from_numpy(tensor).float().permute(2, 0, 1)[None])
    for item in (path, Image.open(path)):
        (found,) = loaded.predict([item])
        np.testing.assert_allclose(found.values, want.values, rtol=0, atol=1e-6)
    (ours,) = public(infer, "anomalyclip.decoding=rgb").predict([path])
    assert np.abs(ours.values - want.values).max() > 1e-4


def test_the_public_route_returns_the_released_losses(train: Case) -> None:
    four = f"anomalyclip.layers={train.spec['layers']}"
    losses = public(train, four).losses(train.images, train.masks, train.labels)
    for name, value in zip(train.arrays["sum_names"].tolist(), train.arrays["sum_values"][0]):
        np.testing.assert_allclose(losses[name].item(), value, rtol=1e-3, atol=1e-5)
