"""FiLo against numbers of its released code (commit 36ff29c): text, maps, boxes, losses.

Tolerances are those of the parity notes: CPU against CPU in float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zsad
from zsad import maps as dense
from zsad.inference.loaded_method import LoadedMethod
from zsad.methods.filo import boxes as filo_boxes
from zsad.methods.filo.config import Grounding
from zsad.methods.filo.prompts import POSITIONS
from zsad.metrics import CategoryMetrics
from zsad.types import Boxes, Scores

UNIT = {"rtol": 1e-4, "atol": 5e-6}
LAYER_MAPS = {"rtol": 1e-3, "atol": 3e-4}
FINAL = {"rtol": 1e-3, "atol": 5e-5}
LOSS = {"rtol": 1e-3, "atol": 1e-5}
GRADIENT = {"rtol": 1e-2, "atol": 1e-5}
LATER = {"rtol": 2e-2, "atol": 1e-4}

Case = tuple[dict[str, np.ndarray], dict[str, Any], LoadedMethod, torch.Tensor]


def close(ours: Any, theirs: Any, rtol: float, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)


def build(name: str, recipe: Any, golden: Any, folder: Path, overrides: Any = None) -> Case:
    """Load the method from files, as a user does: a CLIP state dict and an official checkpoint."""
    arrays, spec = golden(name)
    dims = recipe.ClipDims(**spec["dims"])
    clip, head = (
        recipe.clip_state(dims, spec["seed"]),
        recipe.filo_learnables(dims, spec["seed"], n_ctx=spec["n_ctx"]),
    )
    fingerprint = recipe.fingerprint([*clip.values(), *head.values()])
    close(fingerprint, arrays["recipe_fingerprint"], 1e-4, 0)
    torch.save(clip, folder / "clip.pt")
    # as saved after training: with backbone entries, which must be ignored
    torch.save({"filo": {**head, "clip_model.logit_scale": torch.zeros(())}}, folder / "filo.pth")
    method = zsad.load_method(
        "filo",
        backbone="file",
        weights=folder / "clip.pt",
        image_size=spec["image_size"],
        checkpoint=folder / "filo.pth",
        preset="released",
        device="cpu",
        overrides=overrides,
    )
    count = len(spec.get("names", [0]))
    return arrays, spec, method, recipe.images(count, spec["image_size"], spec["seed"])


@pytest.fixture(scope="module")
def infer(recipe: Any, golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return build("filo_infer_a", recipe, golden, tmp_path_factory.mktemp("infer"))


@pytest.fixture(scope="module")
def scored(infer: Case) -> tuple[Scores, Any]:
    """All images in one batch: the released code takes them one at a time."""
    arrays, spec, loaded, images = infer
    raw = json.loads(str(arrays["detections_json"]))
    context = loaded._context(spec["names"], len(images), raw)
    with torch.no_grad():
        features = loaded.backbone.encode_image(images, loaded.request)
        return loaded.method.score(features, context), features


def test_tokens(infer: Case) -> None:
    arrays, _, loaded, _ = infer
    context = loaded._context(["bottle", "metal_nut"], 2, None)
    for name in ("bottle", "metal_nut"):
        table = context.text[name]
        np.testing.assert_array_equal(table.normal.ids, arrays[f"tokens_normal_{name}"])
        np.testing.assert_array_equal(table.abnormal.ids, arrays[f"tokens_abnormal_{name}"])


def test_positions(infer: Case, scored: Any) -> None:
    theirs = json.loads(str(infer[0]["positions_json"]))
    ours = [place.position for place in scored[0].parts["located"]]
    assert [[POSITIONS[p]] for p in ours] == theirs


def test_image_and_text_features(infer: Case, scored: Any) -> None:
    arrays, _, loaded, _ = infer
    _, adapted = loaded.method._image_vectors(scored[1])
    close(adapted.detach(), arrays["image_feature"], **UNIT)
    pair = scored[0].parts["pair"]
    close(pair, arrays["text_pair"], **UNIT)
    close(F.normalize(pair[:, 0], dim=-1), arrays["normal_text"], **UNIT)
    close(F.normalize(pair[:, 1], dim=-1), arrays["abnormal_text"], **UNIT)
    close(torch.einsum("be,bce->bc", adapted.detach(), pair), arrays["text_probs"], **UNIT)


def test_decoded_tokens(infer: Case, scored: Any) -> None:
    arrays, _, loaded, _ = infer
    method, features = loaded.method, scored[1]
    with torch.no_grad():
        for tap, stage, theirs in zip(method.taps.qkv, method.qkv, arrays["first_decoded_linear"]):
            ours = stage(features.patches(tap)[:1], features.grid)[0]
            close(F.normalize(ours[0], dim=-1), theirs, **UNIT)
        for tap, stage, theirs in zip(method.taps.vv, method.vv, arrays["first_decoded_conv"]):
            assert stage.fold
            ours = stage(features.patches(tap)[:1], features.grid)[0]
            close(F.normalize(ours[0], dim=-1), theirs, **UNIT)


def layer_maps(scores: Scores, size: int) -> torch.Tensor:
    enlarged = [
        torch.sigmoid(dense.upsample(dense.pair_difference(m), size, True)) for m in scores.maps
    ]
    return torch.stack(enlarged, dim=1)  # [B, 7, S, S]


def test_layer_maps(infer: Case, scored: Any) -> None:
    arrays, spec, _, _ = infer
    ours = layer_maps(scored[0], spec["image_size"])
    close(ours, arrays["layer_maps_abnormal"], **LAYER_MAPS)


@pytest.mark.parametrize("together", [True, False])
def test_maps_and_scores(infer: Case, together: bool) -> None:
    arrays, spec, loaded, images = infer
    raw = json.loads(str(arrays["detections_json"]))
    if together:
        found = loaded.predict_tensor(images, spec["names"], boxes=raw)
    else:
        found = [
            loaded.predict_tensor(images[i : i + 1], [spec["names"][i]], boxes=[raw[i]])[0]
            for i in range(len(images))
        ]
    close(np.stack([p.anomaly_map for p in found]), arrays["map_final"], **FINAL)
    close([p.image_score for p in found], arrays["image_score"], **FINAL)


def test_metrics(infer: Case, recipe: Any) -> None:
    arrays, spec, loaded, images = infer
    raw = json.loads(str(arrays["detections_json"]))
    found = loaded.predict_tensor(images, spec["names"], boxes=raw)
    masks = recipe.masks(spec["labels"], spec["image_size"], spec["seed"])[:, 0] > 0.5
    ours = {"pixel_auroc": "pixel_auroc", "pixel_f1": "pixel_f1max", "pixel_ap": "pixel_ap"}
    ours |= {"pixel_aupro": "pixel_aupro_200", "image_auroc": "image_auroc"}
    ours |= {"image_f1": "image_f1max", "image_ap": "image_ap"}
    for column, name in enumerate(arrays["metric_objects"]):
        rows = [i for i, n in enumerate(spec["names"]) if n.replace("_", " ") == name]
        metric = CategoryMetrics("exact", aupro_200=True)
        metric.update(
            torch.stack([torch.from_numpy(found[i].anomaly_map) for i in rows]),
            masks[rows],
            torch.tensor([found[i].image_score for i in rows]),
            torch.tensor([spec["labels"][i] for i in rows]),
        )
        result = metric.compute().metrics
        for row, key in enumerate(arrays["metric_names"]):
            close(result[ours[str(key)]], arrays["metric_values"][row, column], 0, 2e-2)


def test_extra_positions(infer: Case, scored: Any) -> None:
    arrays, spec, loaded, _ = infer
    method, features = loaded.method, scored[1].select([1])
    context = loaded._context([spec["names"][1]], 1, None)
    with torch.no_grad():
        _, adapted = method._image_vectors(features)
        for i, names in enumerate(spec["extra"]):
            cells = tuple(POSITIONS.index(n) for n in names)
            side = method._text_side(adapted, [cells], context, trained=True)
            close(F.normalize(side.pair[0, 1], dim=-1), arrays["extra_abnormal_text"][i], **UNIT)
            close(side.pair[0] @ adapted[0], arrays["extra_text_probs"][i], **UNIT)
            logits = method._stage_logits(features, side.pair)
            maps = layer_maps(Scores([m for s in logits for m in s], adapted), spec["image_size"])
            close(maps.amax((-2, -1))[0], arrays["extra_layer_max"][i], **LAYER_MAPS)


def test_without_adapter(recipe: Any, golden: Any, tmp_path: Path) -> None:
    """``adapter.kind=none`` beside a checkpoint that holds one; no boxes: all nine positions."""
    arrays, spec, loaded, images = build(
        "filo_infer_a", recipe, golden, tmp_path, {"adapter.kind": "none"}
    )
    assert any("adapter entries ignored" in line for line in loaded.report)
    context = loaded._context([spec["names"][1]], 1, None)
    with torch.no_grad():
        features = loaded.backbone.encode_image(images[1:2], loaded.request)
        scores = loaded.method.score(features, context)
        _, plain = loaded.method._image_vectors(features)
    close(plain[0], arrays["noadapter_image_feature"], **UNIT)
    pair = scores.parts["pair"][0]
    close(F.normalize(pair[1], dim=-1), arrays["noadapter_abnormal_text"], **UNIT)
    close(pair @ plain[0], arrays["noadapter_text_probs"], **UNIT)


# --------------------------------------------------------------------- boxes and scoring only
@pytest.fixture(scope="module")
def post(recipe: Any, golden: Any) -> tuple[Any, ...]:
    arrays, spec = golden("filo_post_a")
    close(
        recipe.fingerprint([torch.from_numpy(arrays["text_probs"])]),
        arrays["recipe_fingerprint"],
        1e-4,
        0,
    )
    asked = str(arrays["caption"]).removesuffix(".").split(" . ")
    raw = [Boxes.from_dict(d) for d in json.loads(str(arrays["detections_json"]))]
    size = spec["image_size"]
    places = [filo_boxes.locate(r, asked, Grounding(), "released", size) for r in raw]
    stages = [
        torch.cat([m[:, 1] for m in group])
        for group in zip(
            *(
                recipe.filo_layer_maps(size, spec["layers"], spec["seed"] * 100 + i)
                for i in range(len(raw))
            )
        )
    ]
    probabilities = torch.from_numpy(arrays["text_probs"])
    scores = Scores(
        stages, probabilities[:, 1].double(), kind="values", boxes=[p.kept for p in places]
    )
    return arrays, spec, places, scores, asked


@pytest.fixture(scope="module")
def post_maps(infer: Case, post: tuple[Any, ...]) -> Any:
    import dataclasses

    spec = dataclasses.replace(infer[2].method.map_spec(), weights=None)
    return dense.build_maps(post[3], spec, post[1]["image_size"])


def test_post_positions_and_caption(infer: Case, post: tuple[Any, ...]) -> None:
    arrays, spec, places, _, asked = post
    theirs = json.loads(str(arrays["positions_json"]))
    ours = [[] if p.position is None else [POSITIONS[p.position]] for p in places]
    assert ours == theirs
    category = infer[2]._context([spec["name"]], 1, None).categories[0]
    request = infer[2].method.box_request([category])
    assert request is not None
    assert list(request.phrases[category.key]) == asked


def test_post_maps_and_scores(infer: Case, post: tuple[Any, ...], post_maps: Any) -> None:
    arrays, _, _, scores, _ = post
    final = post_maps.final
    close(final[:, ::7, ::7], arrays["map_every7"], **FINAL)
    stats = torch.stack([final.amax((1, 2)), final.amin((1, 2)), final.mean((1, 2))], dim=1)
    close(stats, arrays["map_stats"], **FINAL)
    close(infer[2].method.image_score(scores, post_maps), arrays["image_score"], 1e-6, 1e-6)


def test_post_metrics(infer: Case, post: tuple[Any, ...], post_maps: Any, recipe: Any) -> None:
    arrays, spec, _, scores, _ = post
    metric = CategoryMetrics("exact", aupro_200=True)
    masks = recipe.masks(spec["labels"], spec["image_size"], spec["seed"])[:, 0] > 0.5
    values = infer[2].method.image_score(scores, post_maps)
    metric.update(post_maps.final, masks, values, torch.tensor(spec["labels"]))
    result = metric.compute().metrics
    names = ["pixel_auroc", "pixel_f1max", "pixel_ap", "pixel_aupro_200"]
    names += ["image_auroc", "image_f1max", "image_ap"]
    theirs = dict(zip(names, arrays["metric_values"][:, 0]))
    # Our maps differ from theirs by 1e-7, so a pixel may change sides at one of 200 thresholds.
    close(result["pixel_aupro_200"], theirs.pop("pixel_aupro_200"), 0, 1e-5)
    close([result[n] for n in theirs], list(theirs.values()), 0, 1e-6)


# ------------------------------------------------------------------------------------ training
def test_training(recipe: Any, golden: Callable[..., Any], tmp_path: Path) -> None:
    """Two steps of the main phase, then two of the adapter phase, on one image."""
    from zsad.methods.filo.convert import translate

    arrays, spec, loaded, images = build("filo_train_a", recipe, golden, tmp_path)
    masks = recipe.masks([spec["label"]], spec["image_size"], spec["seed"])
    labels = torch.tensor([spec["label"]])
    method = loaded.method
    parameters = dict(method.named_parameters())
    before = {n: p.detach().clone() for n, p in parameters.items()}

    for phase in method.phases():
        optimizer = phase.optimizer(method.parameters_of_phase(phase))
        assert {g["weight_decay"] for g in optimizer.param_groups} == {0.01}
        for step in range(2):
            terms = loaded.losses(images[:1], masks, labels, [spec["name"]], phase=phase.name)
            optimizer.zero_grad()
            terms["total"].backward()
            loss_bound = LOSS if step == 0 else LATER
            gradient_bound = GRADIENT if step == 0 else LATER
            if phase.name == "main":
                assert sorted({g["lr"] for g in optimizer.param_groups}) == sorted(
                    set(arrays["main_lrs"].tolist())
                )
                plain = [v for k, v in terms.items() if k.startswith(("focal_", "dice_"))]
                close([float(t.detach()) for t in plain], arrays["main_terms"][step], **loss_bound)
                close(float(terms["local"].detach()), arrays["main_loss"][step], **loss_bound)
                names, norms = arrays["main_grad_names"], arrays["main_grad_norms"][step]
            else:
                close(float(terms["total"].detach()), arrays["adapter_loss"][step], **loss_bound)
                names, norms = arrays["adapter_grad_names"], arrays["adapter_grad_norms"][step]
            ours = []
            for name in names:
                translated = translate(str(name))
                assert translated is not None
                gradient = parameters[translated].grad
                assert gradient is not None
                ours.append(float(gradient.norm()))
            close(ours, norms, **gradient_bound)
            optimizer.step()
    change = [
        float((parameters[n] - before[n]).norm())
        for n in (translate(str(name)) for name in arrays["param_names"])
        if n is not None
    ]
    close(change, arrays["param_change_norms"], **LATER)
