"""The bundled weights of zsad-tiny: their size, their form, and that they detect something."""

from __future__ import annotations

import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from zsad.backbones import tiny
from zsad.benchmarks.tiny import captions
from zsad.benchmarks.tiny.model import TinyClip, read_config
from zsad.data.synthetic.generator import CATEGORIES, draw

WEIGHTS = files("zsad.backbones.tiny") / "weights.safetensors"
IMAGE_FLOOR, PIXEL_FLOOR = 0.78, 0.85  # image AUROC measured on three seeds: 0.891 (MODEL_CARD.md)


def test_the_file_is_small_and_half_precision() -> None:
    content = WEIGHTS.read_bytes()
    assert len(content) < 20_000_000
    packed = load(content)
    assert {t.dtype for k, t in packed.items() if k != "token_embedding.ids"} == {torch.float16}
    assert len(packed["token_embedding.ids"]) < 1000
    assert not any(k.startswith("probe") for k in packed)


def test_the_state_has_openai_names_and_the_shapes_of_the_model_file() -> None:
    config = read_config()
    state = tiny.load_state()
    assert state["visual.proj"].shape == (config["vision_cfg"]["width"], config["embed_dim"])
    assert state["token_embedding.weight"].shape == (tiny.VOCABULARY, config["text_cfg"]["width"])
    assert state["visual.positional_embedding"].shape[0] == 1 + (224 // 16) ** 2
    TinyClip(config).load_state_dict(state)  # every name, every shape
    assert all(torch.isfinite(t).all() for t in state.values())


def test_packing_and_unpacking_gives_the_state_back() -> None:
    state = tiny.load_state()
    packed = load(WEIGHTS.read_bytes())
    again = tiny.unpack(tiny.pack(state, packed["token_embedding.ids"].long()))
    assert again.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor), name


def test_start_embeddings_never_change() -> None:
    table = tiny.start_embeddings(8, 4)
    known = [-0.016932240, -0.013573161, 0.022608195]
    assert table[0, :3].tolist() == pytest.approx(known, abs=1e-8)
    assert tiny.start_embeddings(128, 100).std() == pytest.approx(0.02, rel=0.02)


def test_a_word_that_was_not_trained_keeps_its_start_value() -> None:
    packed = load(WEIGHTS.read_bytes())
    trained = set(packed["token_embedding.ids"].tolist())
    other = next(i for i in range(1000, 40000) if i not in trained)
    table = tiny.load_state()["token_embedding.weight"]
    assert torch.equal(table[other], tiny.start_embeddings(table.shape[1])[other])


def test_the_words_of_held_out_categories_and_defects_were_never_trained() -> None:
    phrases = [*captions.NORMAL, *captions.ANOMALOUS, *captions.TEMPLATES, *captions.GENERAL]
    phrases += [w for words in captions.DEFECT_WORDS.values() for w in words]
    spoken = {w.strip(".,") for p in phrases for w in p.split()}
    held_out = [k for k in CATEGORIES.values() if k.group == "test"]
    assert not spoken & {k.class_name for k in held_out}
    for name in {d for k in held_out for d in k.defects}:
        assert name not in spoken


def test_the_training_model_computes_what_open_clip_computes() -> None:
    from zsad import torchvision_compat

    torchvision_compat.ensure()
    import open_clip

    config: dict[str, Any] = json.loads((files("zsad.backbones.tiny") / "config.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = open_clip.CLIP(**config)
    state = tiny.load_state()
    theirs.load_state_dict(state, strict=False)
    ours = TinyClip(config)
    ours.load_state_dict(state)
    theirs.eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    texts = open_clip.SimpleTokenizer()(["a photo of a damaged screw", "wood"])
    with torch.no_grad():
        cls, dense = ours.visual(ours.visual.embed(images), (8,))
        torch.testing.assert_close(cls, theirs.encode_image(images), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            ours.encode_text(texts), theirs.encode_text(texts), atol=1e-4, rtol=1e-4
        )
        tokens = theirs.visual.forward_intermediates(
            images, indices=1, normalize_intermediates=True, output_fmt="NLC"
        )
        patches = tokens["image_intermediates"][0] @ theirs.visual.proj
        torch.testing.assert_close(dense["last"], patches, atol=1e-4, rtol=1e-4)


def test_it_tells_held_out_defects_from_flawless_pictures() -> None:
    """Two prompts, held-out categories and defects, pictures that no training or report used."""
    from zsad import torchvision_compat

    torchvision_compat.ensure()
    import open_clip

    model = TinyClip(read_config())
    model.load_state_dict(tiny.load_state())
    tokenizer = open_clip.SimpleTokenizer()
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(1, 3, 1, 1)
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(1, 3, 1, 1)
    image_areas, pixel_areas = [], []
    for kind in CATEGORIES.values():
        if kind.group != "test":
            continue
        made = [
            draw(kind, seed=77, split="check", index=i, label=k) for k in (0, 1) for i in range(8)
        ]
        images = (
            torch.from_numpy(np.stack([m.image for m in made])).permute(0, 3, 1, 2).float() / 255
        )
        masks = np.stack([m.mask for m in made])
        with torch.no_grad():
            ids = tokenizer([f"a photo of a {w} {kind.class_name}" for w in ("normal", "damaged")])
            text = F.normalize(model.encode_text(ids), dim=-1)
            cls, dense = model.visual(model.visual.embed((images - mean) / std), (8,))
        direction = text[1] - text[0]
        image_areas.append(roc_auc_score(masks.any((1, 2)), F.normalize(cls, dim=-1) @ direction))
        # The v-v path: the ordinary patch tokens are not tied to prompts, as in CLIP itself.
        maps = (F.normalize(dense["v-v"], dim=-1) @ direction).view(-1, 1, 14, 14)
        maps = F.interpolate(maps, (224, 224), mode="bilinear")[:, 0]
        pixel_areas.append(
            roc_auc_score(masks[:, ::4, ::4].ravel(), maps[:, ::4, ::4].numpy().ravel())
        )
    # 64 against 64 pictures: standard error about 0.04.
    assert np.mean(image_areas) > IMAGE_FLOOR
    assert np.mean(pixel_areas) > PIXEL_FLOOR


def test_the_model_card_stands_beside_the_weights() -> None:
    card = Path(str(files("zsad.backbones.tiny") / "MODEL_CARD.md")).read_text("utf-8")
    for word in ("Data", "Training", "Figures", "Limits"):
        assert word in card
