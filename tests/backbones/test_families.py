"""Other families than CLIP, and the names of open_clip that can be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import zsad
from zsad import registry
from zsad.backbones import Backbone, build, families, load
from zsad.backbones.outline import outline
from zsad.backbones.specs import open_clip_models, spec, specs, usable_open_clip_models
from zsad.errors import RequestError, WeightsError
from zsad.results.store import ResultStore
from zsad.torchvision_compat import timm
from zsad.types import EncoderVariant, FeatureRequest, Tap

ROOT = Path(__file__).resolve().parents[2]
V2, V3 = "dinov2-vit-s-14", "dinov3-vit-s-16"
CLS, FIFTH, LAST = Tap("cls"), Tap("tokens", 5), Tap("tokens", 12)


@pytest.fixture(scope="module")
def towers() -> dict[str, Backbone]:
    """Random DINOv2 and DINOv3, at sizes other than their native ones."""
    sizes = {V2: 56, V3: 64}
    return {name: load(name, weights="random", image_size=s) for name, s in sizes.items()}


def pictures(backbone: Backbone, count: int = 2) -> torch.Tensor:
    side = backbone.info.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def moved(model: torch.nn.Module) -> None:
    """Give every parameter a value: fresh ones leave biases, norms and layer scales without say."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


# ---------------------------------------------------------------------------- open_clip's names
def test_exactly_the_models_of_clips_form_are_named_and_taken() -> None:
    """The list, the check that refuses, and what README says are one thing."""
    usable = usable_open_clip_models()
    assert (len(usable), len(open_clip_models())) == (32, 144), open_clip.__version__
    for name in open_clip_models():
        if name in usable:
            assert spec(name).open_clip_model == name
        else:
            with pytest.raises(RequestError, match=r"cannot be used: .* 32 of open_clip's 144"):
                spec(name)
    for page in ("README.md", "docs/add-a-backbone.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert re.findall(r"(\d+)\s+of\s+(?:its\s+)?(\d+)\s+(?:today|models)", text) == [
            ("32", "144")
        ]


@pytest.mark.slow
def test_what_is_named_can_be_built() -> None:
    for name in usable_open_clip_models():
        config = spec(name).model_config() or {}
        with torch.device("meta"):
            keys = ("embed_dim", "vision_cfg", "text_cfg")
            build.check_architecture(spec(name), open_clip.CLIP(**{k: config[k] for k in keys}))


# ------------------------------------------------------------------------------- DINO's towers
@pytest.mark.parametrize("name", [V2, V3])
def test_taps_are_those_of_timms_own_pass(towers: dict[str, Backbone], name: str) -> None:
    """An independent reference: blocks by hooks, the class token by timm's forward pass."""
    backbone = towers[name]
    model: Any = backbone.model
    images = pictures(backbone)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    moved(model)
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        model.blocks[i].register_forward_hook(lambda _, __, out, i=i: seen.update({i + 1: out}))
        for i in (4, 11)
    ]
    with torch.no_grad():
        whole = model.forward_features(images)
    for hook in hooks:
        hook.remove()
    found = backbone.encode_image(images, FeatureRequest.of(CLS, FIFTH, LAST))
    model.load_state_dict(before)
    registers = model.num_prefix_tokens
    assert registers == (5 if name == V3 else 1)
    rows = [0, *range(registers, seen[5].shape[1])]
    torch.testing.assert_close(found[FIFTH], seen[5][:, rows])
    torch.testing.assert_close(found[LAST], seen[12][:, rows])
    torch.testing.assert_close(found[CLS], whole[:, 0])
    assert found.grid == (4, 4)
    assert found.patches(FIFTH).shape == (2, 16, 384)


@pytest.mark.parametrize("name", [V2, V3])
def test_a_batch_gives_what_its_pictures_give(towers: dict[str, Backbone], name: str) -> None:
    images, request = pictures(towers[name], 3), FeatureRequest.of(CLS, FIFTH)
    together = towers[name].encode_image(images, request)
    for i, image in enumerate(images):
        alone = towers[name].encode_image(image[None], request)
        torch.testing.assert_close(alone[FIFTH][0], together[FIFTH][i], rtol=1e-4, atol=1e-5)


def test_the_outline_is_what_loading_finds(towers: dict[str, Backbone]) -> None:
    for name, backbone in towers.items():
        planned, model = outline(name), backbone.model
        assert planned.text_width == planned.context_length == 0
        assert (planned.depth, planned.width) == (len(model.blocks), model.embed_dim)  # type: ignore[arg-type]
        assert (planned.mean, planned.std) == tuple(
            model.pretrained_cfg[k]  # type: ignore[index]
            for k in ("mean", "std")
        )
        entry = timm.get_pretrained_cfg(specs()[name].hub_repo.removeprefix("timm/"))
        assert entry.hf_hub_id == specs()[name].hub_repo
        assert planned.native_size == entry.input_size[-1]


@pytest.mark.parametrize("known", [n for n, s in specs().items() if s.family == "dino"])
def test_every_name_is_one_of_timms_with_these_sizes(known: str) -> None:
    one = specs()[known]
    assert one.sizes is not None
    with torch.device("meta"):
        model = timm.create_model(one.model)
    assert model.patch_embed.patch_size == (one.sizes.patch,) * 2
    assert (len(model.blocks), model.embed_dim) == (one.sizes.depth, one.sizes.width)
    assert one.hub_repo == f"timm/{one.model}.{one.weights_file.split('.')[1]}"


# -------------------------------------------------------------------------------- their weights
def test_weights_of_a_file_are_taken_and_named(towers: dict[str, Backbone], tmp_path: Path) -> None:
    state = {k: v.contiguous() + 0.01 for k, v in towers[V2].model.state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors")
    mine = load(V2, weights=tmp_path / "mine.safetensors", image_size=56, precision="bf16")
    assert mine.info.weights_source == "file:mine.safetensors"
    assert "unknown weights" in mine.info.banner
    assert mine.image_encoder().dtype == torch.bfloat16
    torch.testing.assert_close(mine.model.norm.bias, state["norm.bias"].bfloat16())
    with pytest.raises(WeightsError, match=r"does not fit backbone 'dinov3-vit-s-16': .* missing"):
        load(V3, weights=tmp_path / "mine.safetensors")
    state["norm.bias"] = state["norm.bias"][:3]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"cut\.safetensors: .* norm\.bias is \(3,\), not"):
        load(V2, weights=tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match=r"cannot be fetched from timm/vit_small.* \(offline"):
        load(V2, offline=True)


# ------------------------------------------------------------------------------ what is refused
def test_text_is_refused_in_one_line(towers: dict[str, Backbone]) -> None:
    with pytest.raises(RequestError, match="'dinov2-vit-s-14' has no text tower") as caught:
        towers[V2].text_encoder().encode_texts(["a bolt"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onednn"}, "backbone.engine=onednn: runs CLIP alone"),
        ({"activation": "gelu"}, "backbone.activation=gelu: is for CLIP"),
        ({"compile": True}, "backbone.compile=True: is for CLIP"),
        ({"image_size": 60}, "backbone.image_size=60: must be a multiple of the patch size 14"),
    ],
)
def test_options_of_clip_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load(V2, weights="random", **options)


def test_taps_and_variants_of_clip_are_refused(towers: dict[str, Backbone]) -> None:
    backbone = towers[V2]
    with pytest.raises(RequestError, match="has no features 'vv', which are CLIP's"):
        backbone.encode_image(pictures(backbone), FeatureRequest.of(Tap("vv", 3, 1)))
    with pytest.raises(ValueError, match=r"layer must be in 1\.\.12"):
        backbone.encode_image(pictures(backbone), FeatureRequest.of(Tap("tokens", 13)))
    with pytest.raises(RequestError, match=r"encoder\.pos_interp=bicubic: is a way to run CLIP"):
        backbone.image_encoder(EncoderVariant(pos_interp="bicubic"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four normal pictures, of which two are for training, and two anomalous ones."""
    rng = np.random.default_rng(3)
    for part, count in (("train/good", 2), ("test/good", 2), ("test/bad", 2)):
        for i in range(count):
            pixels = rng.integers(90, 130, (60, 60, 3), dtype=np.uint8)
            mask = np.zeros((60, 60), dtype=np.uint8)
            if part == "test/bad":
                mask[10:30, 20:40] = 255
                pixels[mask > 0] = 250
                save(tmp_path / "parts/ground_truth/bad" / f"{i}_mask.png", mask)
            save(tmp_path / "parts" / part / f"{i}.png", pixels)
    return tmp_path / "parts"


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def bench(folder: Path, methods: str, **more: Any) -> dict[str, Any]:
    return zsad.bench(
        methods,
        f"folder:{folder}",
        **{"backbone": V2, "weights": "random", **more},
        results=folder.parent / "results",
        device="cpu",
        overrides=["backbone.image_size=56"],
    )


def test_methods_that_read_no_text_run_end_to_end(folder: Path) -> None:
    """Figures, the account of the weights, tables, and the same cells found again."""
    document = bench(folder, "musc,patchcore")
    assert not document["failed"]
    assert {c["method"] for c in document["cells"]} == {"musc", "patchcore"}
    for cell in document["cells"]:
        assert cell["backbone"] == V2
        assert cell["metrics"]["pixel_aupro"] is not None
        assert "random backbone weights" in cell["banner"]
    records = list(ResultStore(folder.parent / "results").records())
    assert {r.info["engine"]["name"] for r in records} == {"torch"}
    assert {r.info["image_size"] for r in records} == {56}
    again = bench(folder, "musc,patchcore")
    assert again["counters"]["cells_run"] == 0
    found = zsad.load_method(
        "patchcore", backbone=V2, weights="random", device="cpu", image_size=56
    )
    references = sorted((folder / "train/good").iterdir())[:1]
    (prediction,) = found.predict([folder / "test/bad/0.png"], "part", references=references)
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (60, 60)
    assert prediction.explanations


def test_methods_that_read_text_are_refused_before_anything_runs(folder: Path) -> None:
    readers = [e.name for e in registry.methods().values() if e.reads_text]
    assert not {"musc", "patchcore"} & set(readers)
    for name in readers:
        with pytest.raises(RequestError, match=f"has no text tower, and {name} reads text"):
            bench(folder, name, dry_run=True)
    with pytest.raises(RequestError, match="has no text tower, and clip, alfa read text"):
        bench(folder, "musc,clip,alfa", dry_run=True)
    with pytest.raises(RequestError, match="and clip reads text"):
        zsad.load_method("clip", backbone=V2, weights="random", device="cpu")
    assert not (folder.parent / "results").exists()


# ---------------------------------------------------------------------------------- a file more
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"odd\.py: defines no FAMILY"),
        ("import nothing_of_that_name\n", r"odd\.py: cannot be imported \(.*nothing_of_that_name"),
        ("from zsad.backbones.families.dino import FAMILY\n", "is defined elsewhere, too"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "odd.py").write_text(text)
    with registry.plugins_forgotten():
        registry.add_plugins(tmp_path)
        with pytest.raises(RequestError, match=message):
            families.specs()
    assert V2 in specs()
