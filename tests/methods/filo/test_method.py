"""FiLo as a whole: prompts, texts, explanations, phases, protocol; a small random CLIP."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

import zsad
from zsad.errors import RequestError, WeightsError
from zsad.inference.loaded_method import LoadedMethod
from zsad.methods.filo import explain, prompts, texts
from zsad.methods.filo.boxes import Located
from zsad.methods.filo.config import Prompt
from zsad.prompt_bank import bank
from zsad.protocols import load_protocol
from zsad.registry import method as method_entry
from zsad.types import Category, Sample

BOTTLE = Category("mvtec", "bottle", "bottle")
SIZE = 70
RAW = {"boxes": [[0.5, 0.9, 0.2, 0.1]], "scores": [0.8], "phrases": ["leaking"]}


@pytest.fixture(scope="module")
def clip(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dims = recipe.ClipDims(
        vision_width=64, vision_layers=8, grid=5, embed=64, text_width=64, text_layers=2
    )
    path = tmp_path_factory.mktemp("filo") / "clip.pt"
    torch.save(recipe.clip_state(dims, 5), path)
    return path


def load(clip: Path, **overrides: Any) -> LoadedMethod:
    return zsad.load_method(
        "filo",
        backbone="file",
        weights=clip,
        image_size=SIZE,
        untrained=True,
        device="cpu",
        overrides=overrides,
    )


def images(recipe: Any, count: int = 3) -> torch.Tensor:
    return recipe.images(count, SIZE, 3)


# ------------------------------------------------------------------------------------ prompts
def wording(category: Category = BOTTLE, **config: Any) -> prompts.Wording:
    return prompts.word(category, prompts.find_entry(category, "bank"), Prompt(**config))


@pytest.mark.parametrize(
    ("key", "spoken", "said"),
    [("chewinggum", "chewing gum", "chewinggum"), ("pcb1", "printed circuit board", "pcb")],
)
def test_the_paper_says_the_words_of_its_own_list(key: str, spoken: str, said: str) -> None:
    category = Category("visa", key, spoken)
    preset = method_entry("filo").resolve(("test", {"preset": "paper"}))
    assert wording(category, learner="fixed").normal[0] == f"A photo of a {spoken}."
    ours = wording(category, learner="fixed", names=preset.prompt.names)
    assert ours.normal[0] == f"A photo of a {said}."


def test_prompt_counts_and_index() -> None:
    words = wording(n_ctx=2)
    assert len(words.normal) == 7
    assert len(words.abnormal) == (10 + 5) * 9
    assert words.abnormal[2 * 9 + 5] == "X X abnormal bottle with dented large at right."
    assert words.abnormal[-1] == "X X bottle with damage at bottom right."


def test_variants_of_the_prompts() -> None:
    assert wording(learner="fixed", details="none", positions="none").abnormal == (
        "A photo of an anomalous bottle.",
    )
    assert wording(n_ctx=1, details="none", positions="none").normal == ("X bottle.",)
    assert len(wording(details="generic").abnormal) == 45
    assert not any("bottle" in p for p in wording(class_name=False).normal)
    unknown = Category("", "teapot", "teapot")
    assert wording(unknown).source == "generic list"


def test_released_names_share_one_table_per_spoken_name(clip: Path) -> None:
    loaded = load(clip, **{"prompt.names": "released"})
    text = loaded._context(["macaroni1", "macaroni2", "pcb3"], 3, None).text
    assert text["macaroni1"] is text["macaroni2"]
    assert "presence of foreign particles" in text["macaroni1"].wording.reasons
    assert any("pcb with flaw" in p for p in text["pcb3"].wording.abnormal)
    own = load(clip)._context(["macaroni1", "macaroni2"], 2, None).text
    assert own["macaroni1"].wording.reasons != own["macaroni2"].wording.reasons


def test_a_file_of_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "kind: filo\ndataset: own\nprovenance: {source: llm}\n"
        "categories: {bottle: {anomaly_types: [melted neck]}}\n"
    )
    entry = prompts.find_entry(BOTTLE, str(path))
    assert prompts.word(BOTTLE, entry, Prompt()).reasons[0] == "melted neck"
    with pytest.raises(RequestError, match=r"neither .bank. nor"):
        prompts.find_entry(BOTTLE, "banc")


def test_generated_descriptions_are_a_model_s_answers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match=r"asked about 'bottle'.*--kind filo --datasets mvtec"):
        prompts.find_entry(Category("mvtec", "bottle", "bottle"), "generate")
    (tmp_path / "filo").mkdir()
    (tmp_path / "filo" / "mvtec.yaml").write_text(
        "kind: filo\ndataset: mvtec\nprovenance: {source: generated, model: some}\n"
        "categories: {bottle: {anomaly_types: [melted neck]}}\n"
    )
    own = bank.PromptBank(files("zsad.prompts_cache"), tmp_path)
    monkeypatch.setattr(bank, "bank", lambda: own)
    wording = prompts.word(BOTTLE, prompts.find_entry(BOTTLE, "generate"), Prompt())
    assert wording.reasons[:2] == ("melted neck", "damaged")
    similarities = torch.linspace(1, 0, len(wording.reasons))
    found = explain.explain_image(wording, similarities, Located(), 2)
    assert [f.source for f in found] == ["llm", "template"]


# -------------------------------------------------------------------------------------- text
def test_images_are_grouped_by_position_and_stay_themselves(clip: Path, recipe: Any) -> None:
    """A batch of mixed categories and positions equals its images one at a time."""
    loaded = load(clip)
    names = ["bottle", "screw", "bottle"]
    boxes = [RAW, None, {**RAW, "boxes": [[0.1, 0.1, 0.1, 0.1]]}]
    x = images(recipe)
    together = loaded.predict_tensor(x, names, boxes=boxes)
    for i in range(3):
        (alone,) = loaded.predict_tensor(x[i : i + 1], names[i : i + 1], boxes=boxes[i : i + 1])
        assert alone.image_score == pytest.approx(together[i].image_score, abs=1e-5)
        torch.testing.assert_close(
            torch.from_numpy(alone.anomaly_map),
            torch.from_numpy(together[i].anomaly_map),
            rtol=0,
            atol=1e-4,
        )


def test_only_the_prompts_of_the_position_are_encoded(clip: Path, recipe: Any) -> None:
    loaded = load(clip)
    x = images(recipe, 1)
    context = loaded._context(["bottle"], 1, None)
    counters = loaded.backbone.counters
    before = counters.text_prompts
    loaded.predict_tensor(x, ["bottle"], boxes=[RAW], explanations=0)
    assert counters.text_prompts - before == 7 + 15
    before = counters.text_prompts
    loaded.predict_tensor(x, ["bottle"], explanations=0)
    assert counters.text_prompts - before == 7 + 135
    table: texts.PromptTable = context.text["bottle"]
    assert all(
        table.wording.abnormal[i].endswith(f"at {prompts.POSITIONS[4]}.")
        for i in table.choose((4,))
    )


# ------------------------------------------------------------------------------- explanations
def test_planted_descriptions_rank_first() -> None:
    words = wording()
    directions = F.normalize(
        torch.randn(len(words.reasons), 32, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    for planted in (0, 3, 9):
        found = explain.explain_image(words, directions @ directions[planted], Located(), 5)
        assert found[0].text == words.reasons[planted]
        assert found[0].similarity == pytest.approx(1.0, abs=1e-5)
        assert [f.rank for f in found] == [1, 2, 3, 4, 5]


def test_predictions_are_explained_by_descriptions_and_boxes(clip: Path, recipe: Any) -> None:
    (found,) = load(clip).predict_tensor(images(recipe, 1), ["bottle"], boxes=[RAW])
    described = [e for e in found.explanations if e.label == "anomalous"]
    assert len(described) == 5
    assert all(e.note.endswith("at bottom") for e in described)
    (region,) = (e for e in found.explanations if e.label == "region")
    assert (region.text, region.source) == ("leaking", "detector")
    assert region.region == pytest.approx((0.4, 0.85, 0.6, 0.95))
    assert 0 <= found.image_score <= 1


# ------------------------------------------------------------------------------ configurations
@pytest.mark.parametrize(
    "overrides",
    [
        {"prompt.learner": "coop"},
        {"prompt.learner": "fixed", "prompt.details": "none", "prompt.positions": "none"},
        {"branches.qkv": "mmci", "branches.vv": "linear"},
        {"branches.qkv": "none"},
        {"mmci.fusion": "softmax_then_sum", "mmci.kernels": ["1x1", "3x3"]},
        {"adapter.kind": "none"},
        {"loss.maps": "fused", "loss.image": "score", "train.joint_global": True},
        {"preset": "released"},
        {"preset": "paper"},
        {"post.norm": "minmax", "grounding": "none", "score": "released"},
    ],
)
def test_every_switch_trains_and_predicts(
    clip: Path, recipe: Any, overrides: dict[str, Any]
) -> None:
    loaded = load(clip, **overrides)
    x, masks, labels = images(recipe, 2), recipe.masks([1, 0], SIZE, 3), torch.tensor([1, 0])
    for phase in loaded.method.phases():
        terms = loaded.losses(x, masks, labels, "bottle", phase=phase.name)
        assert bool(torch.isfinite(terms["total"]))
        terms["total"].backward()
        for name, parameter in loaded.method.parameters_of_phase(phase).items():
            assert parameter.grad is not None, name
        loaded.method.zero_grad()
    for found in loaded.predict_tensor(x, "bottle", boxes=[RAW, None]):
        assert found.anomaly_map.shape == (SIZE, SIZE)


def test_the_paper_filters_by_boxes_before_the_gaussian(clip: Path, recipe: Any) -> None:
    x, plain = images(recipe, 1), {"post.blur": "none", "preset": "paper"}
    (sharp,) = load(clip, **plain).predict_tensor(x, "bottle", boxes=[RAW])
    (paper,) = load(clip, preset="paper").predict_tensor(x, "bottle", boxes=[RAW])
    smooth = gaussian_filter(sharp.anomaly_map.astype(float), sigma=4)
    np.testing.assert_allclose(paper.anomaly_map, smooth, rtol=0, atol=1e-6)
    (late,) = load(clip, preset="paper", **{"boxes.order": "after_blur"}).predict_tensor(
        x, "bottle", boxes=[RAW]
    )
    assert np.abs(late.anomaly_map - smooth).max() > 1e-3


def test_released_training_draws_mosaics_anew_and_keeps_the_replaced_label(clip: Path) -> None:
    released, default = load(clip, preset="released").method, load(clip).method
    samples = [
        Sample(f"{i}.png", i % 2, "bottle", mask="m.png" if i % 2 else None, uid=f"{i:02d}")
        for i in range(40)
    ]
    for method, anew in ((released, True), (default, False)):
        method.auxiliary = ("mvtec",)
        (main, *_) = method.phases()
        epochs = [method.epoch_samples(samples, main, e, 0) for e in range(15)]
        drawn = [s for epoch in epochs for s in epoch if s.uid.startswith("mosaic/")]
        assert method.adds_anew == anew == (len({s.uid for s in drawn}) == len(drawn))
        labels = [sum(s.label for s in epoch) for epoch in epochs]
        assert (set(labels) == {20}) == anew


def test_stored_label_embeddings_of_the_adapter_phase_equal_fresh_ones(
    clip: Path, recipe: Any
) -> None:
    loaded = load(clip)
    x, masks = images(recipe, 2), recipe.masks([1, 0], SIZE, 3)
    labels = torch.tensor([1, 0])

    def adapter_loss() -> float:
        return loaded.losses(x, masks, labels, "bottle", phase="adapter")["total"].item()

    first, before = adapter_loss(), loaded.backbone.counters.text_prompts
    assert adapter_loss() == pytest.approx(first, abs=1e-6)
    assert loaded.backbone.counters.text_prompts == before
    with torch.no_grad():
        loaded.method.normal_prompts.ctx[:, ::2] += 0.5
    assert adapter_loss() != pytest.approx(first, abs=1e-6)
    assert loaded.backbone.counters.text_prompts > before


def test_wrong_stages_and_foreign_files_are_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no v-v features at layer 1"):
        load(clip, vv_stages=[1])
    path = tmp_path / "other.pth"
    torch.save({"prompt_learner": {"ctx_pos": torch.zeros(1)}}, path)
    with pytest.raises(WeightsError, match="not an official FiLo checkpoint"):
        zsad.load_method(
            "filo", backbone="file", weights=clip, image_size=SIZE, checkpoint=path, device="cpu"
        )


def test_the_ablation_protocol_resolves() -> None:
    protocol = load_protocol("filo-ablation")
    assert len(protocol.rows) > 25
    for row in protocol.rows:
        method_entry(row.method).resolve((row.label, row.layer))
